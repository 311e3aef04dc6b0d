"""Choose how a network is quantized while it is trained."""

from dataclasses import dataclass
from enum import Enum

from hawq.errors import UsageError
from hawq.quantizers.gradients import StepGradient
from hawq.quantizers.normalise import WeightNorm
from hawq.quantizers.surrogates import SignGradient

__all__ = ["QuantOptions"]


@dataclass(frozen=True)
class QuantOptions:
    """Settings that all units of a network share; a bit config may name other quantizers for single units.

    Attributes:
        fix_bn: fold the running statistics during training; otherwise use the batch's (evaluation always folds).
        fix_bn_after: training batches after which the statistics are fixed all the same; None: never.
        bn_momentum: weight of a batch in the running statistics where they are not fixed, 0..1 (2011.10680: 0.01, which
            short trainings leave behind).
        act_range_momentum: of the running activation ranges, 0..1, or -1 for running minimum and maximum.
        asymmetric: give tensors with negative values unsigned codes and a zero point instead of signed codes.
        weight_quantizer: name in `hawq.quantizers.WEIGHT_QUANTIZERS`.
        act_quantizer: name in `hawq.quantizers.ACTIVATION_QUANTIZERS`.
        weight_percentile: of `percentile` weights: the largest magnitude that is not clipped, percent, above 50.
        act_percentile: of `percentile` activations, alike.
        clip_stds: of `std`, weights and activations: how many standard deviations from the mean they are clipped.
        weight_group: neighbouring output channels whose weights share a scale; 0: those of a layer. Of the units pinned
            to 8 bits every channel has a scale, unless it is 0.
        weight_norm: of the weights that share a scale, before they are quantized, one of
            `hawq.quantizers.WeightNorm`'s values; the units pinned to 8 bits have none.
        bias_bits: of biases, 2..32: multiples of sx * sw * 2^k, each channel with its least k.
        pad_after_quant: pad quantized maps with zero (1603.05279) instead of quantizing padded ones; differs where zero
            has no code, as in binary maps.
        step_gradient: factor of the gradients of learned steps, gains and thresholds, one of
            `hawq.quantizers.StepGradient`'s values.
        sign_gradient: of binary activations, one of `hawq.quantizers.SignGradient`'s values.
        fixed_point: evaluate by fake quantization in float32 instead of integers.
    """

    fix_bn: bool = True
    fix_bn_after: int | None = None
    bn_momentum: float = 0.1
    act_range_momentum: float = 0.99
    asymmetric: bool = False
    weight_quantizer: str = "minmax"
    act_quantizer: str = "minmax"
    weight_percentile: float = 99.9
    act_percentile: float = 99.9
    clip_stds: float = 3.0
    weight_group: int = 1
    weight_norm: str = WeightNorm.NONE.value
    bias_bits: int = 32
    pad_after_quant: bool = False
    step_gradient: str = StepGradient.PAPER.value
    sign_gradient: str = SignGradient.TRIANGLE.value
    fixed_point: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and names.

        Raises:
            UsageError: one is outside of what its attribute says.
        """
        if not (self.act_range_momentum == -1 or 0 <= self.act_range_momentum <= 1):
            raise UsageError(f"activation range momentum {self.act_range_momentum}: allowed are 0..1 and -1")
        if not 0 <= self.bn_momentum <= 1:
            raise UsageError(f"batch norm momentum {self.bn_momentum}: allowed are 0..1")
        for name in ("weight_percentile", "act_percentile"):
            if not 50 < getattr(self, name) <= 100:
                raise UsageError(f"{name.replace('_', ' ')} {getattr(self, name)}: allowed are numbers in (50, 100]")
        if not self.clip_stds > 0:
            raise UsageError(f"clip at {self.clip_stds} standard deviations: allowed are positive numbers")
        kinds: dict[str, type[Enum]] = {
            "weight_norm": WeightNorm, "step_gradient": StepGradient, "sign_gradient": SignGradient
        }  # fmt: skip
        for name, kind in kinds.items():
            allowed, given = [member.value for member in kind], getattr(self, name)
            if given not in allowed:
                raise UsageError(f"{name.replace('_', ' ')} {given!r} does not exist; there are {', '.join(allowed)}")
        if self.weight_group < 0:
            raise UsageError(f"weight group {self.weight_group}: allowed are 1, 2, ... channels, and 0 for the layer")
        if not 2 <= self.bias_bits <= 32:
            raise UsageError(f"bias bits {self.bias_bits}: allowed are 2..32")
