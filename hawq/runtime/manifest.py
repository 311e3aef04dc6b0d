"""Name the files of an exported library and read its manifest."""

import hashlib
from pathlib import Path
from typing import Any

from hawq.errors import HawqError, UsageError
from hawq.files import read_json

__all__ = ["FORMAT", "LIBRARY", "MANIFEST", "VERSION", "file_facts", "read_manifest"]

FORMAT, VERSION = "hawq-library", 4
LIBRARY, MANIFEST = "model.so", "manifest.json"

_KINDS = {
    "target": str, "arch": str, "scheme": str, "batch": int | None, "most": int, "image": dict,
    "preprocessing": dict | None, "class_names": list | None, "outputs": dict, "storage": dict,
    "program": str, "library": dict,
}  # fmt: skip
"""What a loader needs, and its JSON type."""


def file_facts(library: Path) -> dict[str, Any]:
    """Return what the manifest says about the library's file, so that a damaged copy is told from a whole one."""
    data = library.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the library in a folder.

    Raises:
        UsageError: there is no library, or no manifest.
        HawqError: the manifest is torn or of another version, or the library is not the one it describes.
    """
    folder = Path(folder)
    if not (folder / LIBRARY).is_file():
        raise UsageError(f"{folder} holds no compiled library; make one with `hawq export`")
    path = folder / MANIFEST
    manifest = read_json(path, FORMAT, VERSION)
    if manifest["version"] != VERSION:
        raise HawqError(f"{path} has version {manifest['version']}, this hawq reads {VERSION}: run `hawq export` again")
    wrong = [name for name, kind in _KINDS.items() if name not in manifest or not isinstance(manifest[name], kind)]
    if wrong:
        raise HawqError(f"{path} does not say {', '.join(wrong)}, or not as `hawq export` does: run it again")
    if manifest["library"] != file_facts(folder / LIBRARY):
        raise HawqError(f"{folder / LIBRARY} is not the file that {path.name} describes: copy both again")
    return manifest
