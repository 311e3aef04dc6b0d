"""Show where the time of our library goes, layer by layer, and how far each is from the peak of the machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpu_peak import Peak, measure_peak
from cpu_sides import Subject

__all__ = ["Layer", "Layers", "measure_layers"]

_BITS = (8, 4)


@dataclass(frozen=True)
class Layer:
    """One unit, requantization and what is fused behind it included.

    Attributes:
        name: of the unit.
        geometry: channels and rows x columns in, channels out, kernel, stride.
        mmacs: 10^6 multiply-accumulates for one batch.
        ms: scheme -> median milliseconds for one batch.
    """

    name: str
    geometry: str
    mmacs: float
    ms: dict[str, float]

    def gmacs(self, scheme: str) -> float:
        """Return 10^9 multiply-accumulates a second."""
        return self.mmacs / self.ms[scheme]


@dataclass(frozen=True)
class Layers:
    """Every unit of a network.

    Attributes:
        peak: of one core, the better of before and after.
        threads: cores that worked.
        layers: the units in the network's order.
        rest: scheme -> milliseconds of what belongs to no unit.
        whole: scheme -> milliseconds of the undivided network.
    """

    peak: Peak
    threads: int
    layers: Sequence[Layer]
    rest: dict[str, float]
    whole: dict[str, float]

    def share(self, layer: Layer, scheme: str) -> float:
        """Return a layer's speed as a share of the peak of all cores that worked."""
        return layer.gmacs(scheme) / (self.peak.gmacs * self.threads)


def measure_layers(subject: Subject, threads: int, seconds: float) -> Layers:
    """Profile a network at uniform8 and uniform4 and measure the peak, in a process pinned to its cores.

    Args:
        subject: the network and batch.
        threads: the process was started with.
        seconds: to spend on each scheme.

    Raises:
        HawqError: the peak cannot be measured here.
    """
    from hawq.bitconfig import UnitBits
    from tvm_export.profile import profile, uniform_program

    before = measure_peak()
    graph = subject.graph()
    programs = {UnitBits(b, b): uniform_program(graph, subject.network, UnitBits(b, b), subject.seed) for b in _BITS}
    found = profile(programs, graph.units, "llvm", batch=subject.batch, seconds=seconds)
    profiles = {f"uniform{bits}": result for bits, result in found.items()}
    layers = [
        Layer(
            name,
            _geometry(graph, name),
            graph.macs(name) * subject.batch / 1e6,
            {scheme: result.units[name].median_ms for scheme, result in profiles.items()},
        )
        for name in graph.units
    ]
    return Layers(
        max(before, measure_peak(), key=lambda peak: peak.gmacs),
        threads,
        layers,
        {scheme: result.rest.median_ms for scheme, result in profiles.items()},
        {scheme: result.whole.median_ms for scheme, result in profiles.items()},
    )


def _geometry(graph: Any, unit: str) -> str:
    """Return for example `64x56x56 -> 128, 3x3, stride 2`."""
    from hawq.graph.ir import Conv2d

    node = graph.units[unit]
    inside = "x".join(map(str, graph.nodes[node.inputs[0]].shape))
    if not isinstance(node.op, Conv2d):
        return f"{inside} -> {node.shape[0]}, linear"
    height, width = graph.weight_shape(unit)[2:]
    stride = f", stride {node.op.stride[0]}" if node.op.stride[0] > 1 else ""
    groups = f", {node.op.groups} groups" if node.op.groups > 1 else ""
    return f"{inside} -> {node.shape[0]}, {height}x{width}{stride}{groups}"
