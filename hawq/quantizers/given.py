"""`given`: weights that post-training methods have put on a grid, and the grid."""

from torch import Tensor

from hawq.quantizers.fake import fake_quantize
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_weight
from hawq.quantizers.weight import WeightQuantizer, weight_limit, weight_scale

__all__ = ["GivenWeight"]


@register_weight("given")
class GivenWeight(WeightQuantizer):
    """Keep the scales that a method found (`QuantizedModel.give_weights`), until then those of `minmax`."""

    everywhere = True
    scales_given = True

    scales: Tensor

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self.register_buffer("scales", weight_scale(weight, bits))

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales, float32, (O,)."""
        return self.scales

    def quantize(self, rows: Tensor) -> Tensor:
        """Return scale * code; the gradient passes rounding and clipping unchanged."""
        limit = weight_limit(self.bits)
        return fake_quantize(rows, self.scales[:, None], 0, -limit, limit)
