"""Find ranges of weights and activations by a rule: every range rule that needs no training is a method."""

from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Ranges, Workbench

__all__: list[str] = []


@register_method("minmax", Stage.RULES)
def _minmax(bench: Workbench) -> None:
    """Let ranges hold everything that was seen, of weights and activations."""
    bench.use(weight_quantizer="minmax", act_quantizer="minmax")


@register_method("percentile", Stage.RULES)
def _percentile(bench: Workbench) -> None:
    """Leave outliers out of the ranges of activations; weights keep theirs."""
    bench.use(weight_quantizer="minmax", act_quantizer="percentile")


@register_method("mse", Stage.RULES)
def _mse(bench: Workbench) -> None:
    """Choose ranges of weights and activations with the least squared error."""
    bench.use(weight_quantizer="mse", act_quantizer="mse")


@register_method("per-tensor", Stage.RULES)
def _per_tensor(bench: Workbench) -> None:
    """Give the weights of a layer one scale instead of one a channel."""
    bench.use(weight_group=0)


@register_method("statistics", Stage.RULES)
def _statistics(bench: Workbench) -> None:
    """Take ranges of activations from batch norms' moments, six deviations wide, though there are images."""
    bench.use(act_quantizer="minmax")
    bench.ranges = Ranges.MOMENTS
