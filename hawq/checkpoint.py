"""Keep checkpoints: written whole or not at all, read without running code."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hawq.errors import HawqError, UsageError, reason
from hawq.files import write_atomically

__all__ = ["is_checkpoint", "read_checkpoint", "write_checkpoint"]

_FORMAT, _VERSION = "hawq-checkpoint", 1


def write_checkpoint(path: Path, body: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them.

    The keys of a quantized network's checkpoint: `arch`, `scheme`, `units` (unit -> [weight bits, activation bits]),
    `quantizers` (unit -> names of its own), `options` (QuantOptions), `model` (state dict), `optimizer`
    (parameter -> its moments), `average` (averaged parameters, or None), `scaler` (of an fp16 loss), `epoch` (epochs
    done), `step` (steps done), `loss` and `count` (sum and images of the epoch that is under way), `best` (best top-1
    so far, percent), `history`, `settings` (the resolved training options). Equal bodies give equal bytes, whatever
    the file is called.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch would write its name into the file
            torch.save(_canonical({"format": _FORMAT, "version": _VERSION, **body}), file)

    write_atomically(path, write)


def _canonical(value: Any) -> Any:
    """Return plain containers anew, equal strings as one object: pickle writes only once what is shared."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


def is_checkpoint(path: Path) -> bool:
    """Tell whether a file is a whole checkpoint of hawq, of any version, and not one of another program."""
    try:
        body = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # the tensors stay on the disk
    except Exception:  # files of others lead torch into any error there is
        return False
    return isinstance(body, dict) and body.get("format") == _FORMAT


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint written by `write_checkpoint`.

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, of another kind, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist; make it first with `hawq train` or `hawq ptq`")
    try:
        body = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn files lead torch into any error there is
        raise HawqError(f"{path} cannot be read as a checkpoint ({reason(error)}); train it again") from error
    if not isinstance(body, dict) or body.get("format") != _FORMAT or body.get("version") != _VERSION:
        raise HawqError(f"{path} is no checkpoint of hawq (format {_FORMAT}, version {_VERSION})")
    return body
