"""`bias-correction`: take from every bias what rounded weights add to the mean (1906.04721, section 4.2)."""

from hawq.graph.ir import Conv2d, Linear
from hawq.ptq.gaussians import follow, mean_response
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__: list[str] = []


@register_method("bias-correction", Stage.MODEL)
def _bias_correction(bench: Workbench) -> None:
    """Correct biases by the mean error of rounded weights, with means that batch norms tell; needs no images.

    b -= (Q(W) - W) E[x], E[x] of inputs that are normal before their activation.
    """
    spreads = follow(bench.graph, bench.moments)
    for name, node in bench.graph.units.items():
        assert isinstance(node.op, Conv2d | Linear)
        unit = bench.model.unit(name)
        error = unit.quantizer(unit.weight) - bench.graph.tensors[node.op.weight]
        shift = mean_response(error, spreads[node.inputs[0]].after.mean, getattr(node.op, "groups", 1))
        assert unit.bias is not None  # folding gave it one
        unit.bias.sub_(shift)
