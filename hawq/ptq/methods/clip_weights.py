"""`clip-weights`: keep folded weights within +-15 (1906.04721, section 5)."""

from dataclasses import replace

from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__: list[str] = []

LIMIT = 15.0


@register_method("clip-weights", Stage.FLOAT)
def _clip_weights(bench: Workbench) -> None:
    """Clip folded weights at +-15; for one scale a layer, where single channels reach far beyond the others."""
    tensors, clipped = dict(bench.graph.tensors), 0
    for unit in bench.graph.units:
        name = bench.graph.unit(unit).weight
        weight = tensors[name]
        tensors[name] = weight.clamp(-LIMIT, LIMIT)
        clipped += int((weight.abs() > LIMIT).sum())
    bench.graph = replace(bench.graph, tensors=tensors)
    bench.notes.append(f"clipped {clipped} weights at +-{LIMIT:g}")
