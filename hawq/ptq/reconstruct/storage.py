"""Keep many activations: in memory as far as it is allowed, else in files that the system maps into memory."""

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["Storage"]

_GIB = 1 << 30


class Storage:
    """Lend float32 tensors; what does not fit lies in a file that is gone when the tensor is.

    A tensor holds the same numbers wherever it lies, so a bound costs time and changes no result.

    Args:
        memory: GiB that tensors may take in memory.
        folder: for the files; None: that of the system.
    """

    def __init__(self, memory: float, folder: Path | None = None) -> None:
        self.limit, self.folder = int(memory * _GIB), folder
        self._held: dict[int, int] = {}  # bytes in memory, by address

    @property
    def held(self) -> int:
        """Bytes that are lent and lie in memory."""
        return sum(self._held.values())

    def lend(self, shape: tuple[int, ...]) -> Tensor:
        """Return a float32 tensor of undefined content."""
        count = torch.Size(shape).numel()
        if self.held + 4 * count > self.limit:
            return self._mapped(count).view(shape)
        tensor = torch.empty(shape)
        self._held[tensor.data_ptr()] = 4 * count
        return tensor

    def take_back(self, tensor: Tensor) -> None:
        """Count the memory of a tensor as free; the caller forgets it."""
        self._held.pop(tensor.data_ptr(), None)

    def _mapped(self, count: int) -> Tensor:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".activations.")
        os.close(handle)
        try:
            return torch.from_file(name, shared=True, size=count, dtype=torch.float32)
        finally:
            os.unlink(name)  # the mapping keeps the file; it goes with the tensor, or with a killed process
