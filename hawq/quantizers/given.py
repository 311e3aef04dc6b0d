"""`given`: weights that post-training methods have put on a grid, and the grid."""

import torch
from torch import Tensor

from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_weight
from hawq.quantizers.surrogates import substitute
from hawq.quantizers.weight import WeightQuantizer, weight_limit, weight_scale

__all__ = ["GivenWeight"]

_TOP = 127
"""The largest code that there is."""


@register_weight("given")
class GivenWeight(WeightQuantizer):
    """Keep the scales and the largest codes of channels that a method found (`QuantizedModel.give_weights`).

    Until then they are those of `minmax`.
    """

    everywhere = True
    scales_given = True

    scales: Tensor
    limits: Tensor

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self.register_buffer("scales", weight_scale(weight, bits))
        self.register_buffer("limits", torch.full_like(self.scales, weight_limit(bits)))

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales, float32, (O,)."""
        return self.scales

    def quantize(self, rows: Tensor) -> Tensor:
        """Return scale * code; the gradient passes rounding and clipping unchanged."""
        ends, scales = (self.limits * self.scales)[:, None], self.scales[:, None]
        clipped = torch.minimum(torch.maximum(rows.detach(), -ends), ends)
        return substitute(fake_quantize(clipped, scales, 0, -_TOP, _TOP), rows)
