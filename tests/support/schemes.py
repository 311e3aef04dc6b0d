"""Quantize the small networks for tests."""

from networks import SIZE, build, images

from hawq.bitconfig import BitConfig, UnitBits
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups
from hawq.graph.trace import trace
from hawq.integer import IntegerProgram
from hawq.qat.model import QuantizedModel
from hawq.qat.plan import QuantOptions
from hawq.schemes import PINNED_BITS, uniform


def mixed(graph: FloatGraph) -> BitConfig:
    """Give units and tie groups different pairs of widths, 2 to 8."""
    units = dict(uniform("net", graph, 8).units)
    for index, group in enumerate([*tie_groups(graph), *((u,) for u in graph.units)]):
        for unit in group:
            if unit not in pinned_units(graph) and units[unit] == PINNED_BITS:
                units[unit] = UnitBits(2 + (index * 5 + len(unit)) % 7, 2 + index * 3 % 6)
    return BitConfig("net", "mixed", units)


SCHEMES = {
    "uniform8": lambda graph: uniform("net", graph, 8),
    "uniform4": lambda graph: uniform("net", graph, 4),
    "mixed": mixed,
}


def calibrated(name: str, scheme: str = "uniform8", **options: object) -> QuantizedModel:
    """Return a small network, quantized and calibrated."""
    graph = trace(build(name), (3, SIZE, SIZE))
    model = QuantizedModel(graph, SCHEMES[scheme](graph), QuantOptions(**options))
    model.calibrate([images(8, seed) for seed in (1, 2)])
    return model.eval()


def lowered(name: str, scheme: str = "uniform8", **options: object) -> IntegerProgram:
    """Return a small network as an integer program."""
    return calibrated(name, scheme, **options).lower()
