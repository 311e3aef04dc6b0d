"""`adaround`: learn whether each weight rounds up or down, unit by unit (2004.10568)."""

from hawq.ptq.reconstruct.blocks import nodes_alone
from hawq.ptq.reconstruct.engine import Reconstruction
from hawq.ptq.reconstruct.network import reconstruct
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__: list[str] = []


@register_method("adaround", Stage.MODEL, needs_images=True)
def _adaround(bench: Workbench) -> None:
    """Learn the rounding of weights, unit by unit, on what the unit puts out."""
    how = Reconstruction(bench.settings.iterations, drop=0.0, ranges=False)
    reconstruct(bench, "adaround", nodes_alone(bench.graph), how)
