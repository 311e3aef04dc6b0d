"""Say how the codes of a tensor lie in memory, so that an op's definition speaks of codes only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tvm import te, tirx

from hawq.integer import TensorType
from hawq.runtime.storage import unpack

__all__ = ["Batch", "Storage", "round_up"]

Expr = Any
"""An integer expression of TensorIR."""

Batch = int | tirx.Var
"""Images per call: a number, or a variable that every call binds."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Storage:
    """Store a tensor as (N, H, W, channels); a tensor of shape (F,) is (N, 1, 1, F).

    Attributes:
        type: of the codes.
        channels: stored channels, at least those of the type; the extra ones hold arbitrary codes that no op uses
            (weights are zero there).
        packed: two codes of at most 4 bits share a byte along the channels, the even channel in the low nibble.
    """

    type: TensorType
    channels: int
    packed: bool = False

    @property
    def chw(self) -> tuple[int, int, int]:
        """(C, H, W) of the codes themselves."""
        c, h, w = self.type.shape if len(self.type.shape) == 3 else (*self.type.shape, 1, 1)
        return c, h, w

    @property
    def dtype(self) -> str:
        """Element type in memory."""
        if self.packed:
            return "uint8"
        width = 8 if self.type.bits <= 8 else self.type.bits
        return f"{'' if self.type.signed else 'u'}int{width}"

    def shape(self, batch: Batch) -> tuple[Batch, int, int, int]:
        """Return the shape in memory."""
        _, h, w = self.chw
        return batch, h, w, self.channels // 2 if self.packed else self.channels

    def placeholder(self, batch: Batch, name: str) -> te.Tensor:
        """Return the tensor as an argument of a kernel."""
        return te.placeholder(self.shape(batch), self.dtype, name=name)

    def read(self, tensor: te.Tensor, n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        """Return the code at (n, h, w, c) as int32."""
        if not self.packed:
            return tensor[n, h, w, c].astype("int32")
        byte = tensor[n, h, w, c // 2].astype("int32")
        nibble = (byte >> ((c % 2) * 4)) & 15
        return (nibble ^ 8) - 8 if self.type.signed else nibble

    def write(self, batch: Batch, code: Callable[[Expr, Expr, Expr, Expr], Expr], name: str = "out") -> te.Tensor:
        """Return the stored tensor whose codes are code(n, h, w, c), an integer expression inside the code range."""
        if not self.packed:
            return te.compute(self.shape(batch), lambda n, h, w, c: code(n, h, w, c).astype(self.dtype), name=name)

        def byte(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
            low, high = (code(n, h, w, c * 2 + i).astype("int32") & 15 for i in (0, 1))
            return tirx.bitwise_or(low, high << 4).astype("uint8")

        return te.compute(self.shape(batch), byte, name=name)

    def unpack(self, stored: Tensor) -> Tensor:
        """Return the codes, int32, (N, C, H, W) or (N, F), of a tensor as it lies in memory."""
        codes = unpack(stored.cpu().numpy(), self.type.shape, signed=self.type.signed, packed=self.packed)
        return torch.from_numpy(codes)
