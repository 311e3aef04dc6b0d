"""`fatnn`: at most four integer levels, the step in front of each learned (2008.05101)."""

from torch import Tensor, nn

from hawq.quantizers.gradients import scale_gradient
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import register_activation, register_weight
from hawq.quantizers.staircase import StaircaseActivation, corners_of, staircase
from hawq.quantizers.ternary import TernaryGain, ternary_threshold
from hawq.quantizers.weight import channel_floor

__all__ = ["FatnnActivation", "FatnnWeight"]


@register_activation("fatnn")
class FatnnActivation(StaircaseActivation):
    """Have four levels, codes 0..3, where no value is negative: y = sum_j round(clip((x - sum_(k<j) 1/a_k) a_j, 0, 1)).

    Elsewhere there are three, which keep one at zero: y = round(clip(a_0 x, -1, 0)) + round(clip(a_1 x, 0, 1)). What is
    learned is 1/a, the width of a step.
    """

    widths = range(2, 3)

    def code_limits(self) -> tuple[int, int]:
        """Return -1 and 1 where values may be negative, else 0 and 3."""
        return (-1, 1) if self.may_be_negative else (0, 3)


@register_weight("fatnn")
class FatnnWeight(TernaryGain):
    """Learn both steps of every row: t = round(clip(a_0 w, -1, 0)) + round(clip(a_1 w, 0, 1)).

    They begin 1.4 mean|w| wide, with thresholds at 0.7. The gradient to a weight is the gain times a where the clip
    lets it through; gradients of widths 1/a are scaled as `step_gradient` says.
    """

    def __init__(self, bits: int, weight: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        width = 2 * channel_floor(ternary_threshold(self.rows(weight.detach())))
        self.step_widths = nn.Parameter(width[:, None].repeat(1, 2))

    def integers(self, rows: Tensor) -> Tensor:
        """Return t, float32, (R, n)."""
        corners = scale_gradient(corners_of(self.step_widths, -1), self.gradient_factor(rows))
        return staircase(rows, corners[:, None]) - 1
