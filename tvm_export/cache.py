"""Keep the machine code of kernels between exports."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import tvm

from hawq.files import write_atomically

__all__ = ["VARIABLE", "KernelCache", "default_folder"]

VARIABLE = "HAWQ_CACHE"
"""Environment variable with the folder of the cache."""

_FORMAT = b"hawq-kernel 1\n"
"""Heads every entry and every key; to be raised when hawq compiles the same source with other options."""

_DIGEST = hashlib.sha256().digest_size
_LIMIT = 512 * 2**20


def default_folder() -> Path:
    """Return where kernels are kept: HAWQ_CACHE, else the folder `hawq` in the user's caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(VARIABLE) or Path(caches) / "hawq" / "kernels")


class KernelCache:
    """Look machine code up by all that it is made from, or make it.

    An entry is a file whose name is the hash of what it is made from and which holds the hash of its content: a torn or
    altered one is made anew. Files appear whole, so processes may share a folder; where it cannot be written, kernels
    are made every time.

    Args:
        folder: of the entries, made when needed; by default `default_folder()`.
        limit: bytes that `trim` leaves; entries used longest ago go first.

    Attributes:
        found: kernels that were there.
        made: kernels that had to be made.
    """

    def __init__(self, folder: Path | None = None, limit: int = _LIMIT) -> None:
        self._folder, self._limit = folder or default_folder(), limit
        self._counting = threading.Lock()
        self.found = self.made = 0

    def fetch(self, source: str, make: Callable[[], bytes], kernels: int = 1) -> bytes:
        """Return the machine code of one or more kernels.

        Args:
            source: all that decides about it: kernels, target, compiler. TVM's version need not be in it.
            make: compiles it.
            kernels: how many they are.
        """
        key = hashlib.sha256(_FORMAT + f"{tvm.__version__}\n{source}".encode()).hexdigest()
        path = self._folder / key
        code = _read(path)
        with self._counting:
            self.found += kernels * (code is not None)
            self.made += kernels * (code is None)
        if code is None:
            code = make()
            self._keep(path, code)
        return code

    def _keep(self, path: Path, code: bytes) -> None:
        entry = _FORMAT + hashlib.sha256(code).digest() + code
        with contextlib.suppress(OSError):  # a full disk, or a folder that belongs to others, only costs time
            write_atomically(path, lambda temporary: temporary.write_bytes(entry))

    def trim(self) -> None:
        """Delete entries until the rest fits; another process may be doing the same."""
        entries = []
        for path in self._folder.glob("*"):  # of which there are none where there is no folder
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                entries.append((facts.st_mtime_ns, facts.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _read(path: Path) -> bytes | None:
    """Return the code in an entry and mark it as used; None if there is none, or not as it was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(_FORMAT) + _DIGEST
    code = data[head:]
    if data[:head] != _FORMAT + hashlib.sha256(code).digest():
        return None
    with contextlib.suppress(OSError):  # another process has deleted it, or the folder is read-only
        os.utime(path)
    return code
