"""Choose the arithmetic of the float layers while they train."""

from enum import Enum

import torch

__all__ = ["Precision"]


class Precision(Enum):
    """The type in which convolutions and linear layers are computed; weights, losses and quantizers stay float32.

    FLOAT32: as everything else. BF16: 8 bits of mantissa, the range of float32. FP16: 11 bits, with the loss scaled up
    so that small gradients do not vanish (1710.03740).
    """

    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"

    def autocast(self, device: str) -> torch.autocast:
        """Return the context of a forward pass."""
        kind = torch.device(device).type
        dtype = torch.float16 if self is Precision.FP16 else torch.bfloat16
        return torch.autocast(kind, dtype=dtype, enabled=self is not Precision.FLOAT32)

    def scaler(self, device: str) -> torch.amp.GradScaler:
        """Return the scaler of the loss, which passes it unchanged unless it is computed in FP16."""
        return torch.amp.GradScaler(torch.device(device).type, enabled=self is Precision.FP16)
