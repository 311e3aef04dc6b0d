"""Find a data set by name, or recognise it by its content."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hawq.data.image_data import ImageData
from hawq.data.preprocessing import ModelSpec
from hawq.errors import UsageError

__all__ = ["load_data", "names", "register_data"]

Reader = Callable[[Path | None, ModelSpec | None, dict[str, Any]], ImageData]
_READERS: dict[str, Reader] = {}


def register_data(name: str) -> Callable[[Reader], Reader]:
    """Register a reader: (path, what the network knows of its input, the user's overrides) -> ImageData."""

    def register(reader: Reader) -> Reader:
        _READERS[name] = reader
        return reader

    return register


def names() -> list[str]:
    """Return the names of all kinds of data sets."""
    return sorted(_READERS)


def load_data(name: str, path: Path | None = None, *, spec: ModelSpec | None = None, **overrides: Any) -> ImageData:
    """Return a data set.

    Args:
        name: a registered name, or an existing folder or .npz file, which is recognised by its content.
        path: folder or file; None for embedded data.
        spec: what the network knows of its input.
        overrides: size, mean, std, interpolation; None leaves what the data set and the network say.

    Raises:
        UsageError: unknown name, or nothing at the path.
        HawqError: the files are torn or foreign.
    """
    if name not in _READERS and Path(name).exists():
        name, path = _recognise(Path(name)), Path(name)
    if name not in _READERS:
        raise UsageError(f"unknown data {name!r}: allowed are {', '.join(names())}, or an existing folder or .npz file")
    return _READERS[name](path, spec, overrides)


def _recognise(path: Path) -> str:
    if path.suffix == ".npz":
        return "npz"
    for folder, name in (("cifar-10-batches-py", "cifar10"), ("cifar-100-python", "cifar100")):
        if (path / folder).is_dir():
            return name
    return "voc" if (path / "JPEGImages").is_dir() else "imagefolder"


def need_path(name: str, path: Path | None) -> Path:
    """Return the path of a data set that lies in files.

    Raises:
        UsageError: none was given, or nothing is there.
    """
    if path is None:
        raise UsageError(f"--data {name} needs --data-path: where its files lie")
    if not path.exists():
        raise UsageError(f"--data-path {path} does not exist (for --data {name})")
    return path
