"""Read and write the files of a run so that a killed process never leaves a torn one.

JSON is read where torch is not installed, so torch and safetensors are imported only where tensors are meant.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawq.errors import HawqError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["read_json", "read_tensors", "write_atomically", "write_json", "write_tensors"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary name beside `path`, then rename it to `path`.

    Args:
        path: the file to create or replace; its folder is created.
        write: writes the complete file to the path it is given.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the file from the user's colleagues
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, kind: str, version: int, body: Mapping[str, Any]) -> None:
    """Write one JSON document headed by its `format` and `version`.

    Args:
        path: the file to create or replace.
        kind: name of the format, for example `hawq-bit-config`.
        version: integer version of that format.
        body: the document's own keys; values must be JSON types.
    """
    text = json.dumps({"format": kind, "version": version, **body}, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON document and check its `format` and `version`.

    Args:
        path: the file to read.
        kind: the expected format.
        version: the newest version that is understood.

    Returns:
        The document, `format` and `version` included.

    Raises:
        UsageError: the file does not exist.
        HawqError: it is not JSON, has another format or a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist (expected a {kind} file)")
    try:
        document = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HawqError(f"{path} is not valid JSON ({error}); it may be cut off: write it again") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != kind:
        raise HawqError(f"{path} has format {found!r}, expected {kind!r}")
    if not isinstance(document.get("version"), int) or document["version"] > version:
        raise HawqError(f"{path} has version {document.get('version')!r} of {kind}; this hawq reads up to {version}")
    return document


def write_tensors(path: Path, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Write tensors as safetensors, on the CPU, in sorted order, so that equal tensors give equal bytes."""
    from safetensors.torch import save_file

    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_atomically(path, lambda temporary: save_file(plain, temporary))


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """Read a safetensors file.

    Raises:
        UsageError: the file does not exist.
        HawqError: the file is torn or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist (expected a safetensors file)")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise HawqError(f"{path} cannot be read as safetensors ({error}); it may be cut off: write it again") from error
