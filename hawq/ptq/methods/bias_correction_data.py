"""`bias-correction-data`: let every unit put out the float network's mean (1906.04721, appendix D)."""

import torch

from hawq.ptq.registry import Stage, register_method
from hawq.ptq.walk import walk
from hawq.ptq.workbench import Workbench

__all__: list[str] = []


@register_method("bias-correction-data", Stage.MODEL, needs_images=True)
def _bias_correction_data(bench: Workbench) -> None:
    """Correct biases by the mean error of every unit on images, that of rounded activations included.

    Units are corrected in the order of the network: each makes up for what those before it left.
    """
    model, units, done = bench.model, len(bench.graph.units), 0
    for node, paces in walk(model, bench.needed_images()):
        if node.name not in bench.graph.units:
            continue
        unit, source = model.unit(node.name), node.inputs[0]
        error, values = 0.0, 0
        for pace in paces:
            found = unit.unclamped(
                model.reading(source, pace.quantized, pace.reads), model.input_quantizer(source), True
            )
            missing = pace.output - found
            error = error + missing.sum([axis for axis in range(missing.dim()) if axis != 1], dtype=torch.float64)
            values += missing[:, 0].numel()
        assert unit.bias is not None  # folding gave it one
        unit.bias.add_(error / values)
        done += 1
        bench.progress("correcting biases", done, units, node.name)
