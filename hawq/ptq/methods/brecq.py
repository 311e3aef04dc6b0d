"""`brecq`: learn roundings and ranges of activations together, block by block (2102.05426, 2203.05740)."""

from hawq.ptq.reconstruct.blocks import blocks
from hawq.ptq.reconstruct.engine import Reconstruction
from hawq.ptq.reconstruct.network import reconstruct
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench

__all__: list[str] = []


@register_method("brecq", Stage.MODEL, needs_images=True)
def _brecq(bench: Workbench) -> None:
    """Learn roundings of weights and ranges of activations, block by block, some values left unquantized (QDrop)."""
    how = Reconstruction(bench.settings.iterations, drop=bench.settings.drop, ranges=True)
    reconstruct(bench, "brecq", blocks(bench.graph), how)
