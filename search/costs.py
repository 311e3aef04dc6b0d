"""Compute what a unit costs at given bits: size and bit operations, exactly.

Every convolution and linear layer counts, the pinned ones (first convolution, classifier) included; biases, batch
norm, activations, pooling and additions do not. A new cost is one function under `@register_cost`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path

from hawq.bitconfig import UnitBits
from hawq.files import write_json
from hawq.graph.ir import FloatGraph

__all__ = ["COSTS", "Cost", "UnitFacts", "register_cost", "save_costs", "total_cost", "unit_facts"]


@dataclass(frozen=True)
class UnitFacts:
    """State the sizes of a unit that its costs follow from.

    Attributes:
        name: of the unit.
        weights: number of weights, bias not counted.
        macs: multiply-accumulates for one image.
    """

    name: str
    weights: int
    macs: int


CostFunction = Callable[[UnitFacts, UnitBits], float]


@dataclass(frozen=True)
class Cost:
    """Describe one kind of cost.

    Attributes:
        name: as it stands in a budget, for example `size`.
        aliases: other spellings a budget may use.
        symbol: unit in which it is reported, for example `MiB`.
        suffixes: unit of an absolute budget -> how much of the plain unit (bytes, bit operations) it is.
        of: cost of a unit at given bits, in the plain unit.
    """

    name: str
    aliases: tuple[str, ...]
    symbol: str
    suffixes: Mapping[str, float]
    of: CostFunction

    def scaled(self, value: float) -> float:
        """Return a plain value in the unit of the reports."""
        return value / self.suffixes[self.symbol]

    def show(self, value: float) -> str:
        """Return a plain value as text, rounded up so that it works as a limit, for example `11.138 MiB`."""
        scaled = self.scaled(value)
        decimals = 3 if scaled >= 1 or scaled <= 0 else 3 - floor(log10(scaled))
        return f"{ceil(scaled * 10**decimals) / 10**decimals:.{decimals}f} {self.symbol}"


COSTS: dict[str, Cost] = {}
"""Every registered cost by name."""


def register_cost(
    name: str, symbol: str, suffixes: Mapping[str, float], aliases: tuple[str, ...] = ()
) -> Callable[[CostFunction], CostFunction]:
    """Register the decorated function as a cost.

    Args:
        name: as it stands in a budget.
        symbol: unit of the reports, one of `suffixes`.
        suffixes: units an absolute budget may be given in.
        aliases: other spellings of the name.
    """

    def register(function: CostFunction) -> CostFunction:
        COSTS[name] = Cost(name, aliases, symbol, suffixes, function)
        return function

    return register


@register_cost("size", "MiB", {"B": 1, "KB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20})
def size(unit: UnitFacts, bits: UnitBits) -> float:
    """Return n * w / 8: bytes of the packed weights (2011.10680, section 3.4)."""
    return unit.weights * bits.weight / 8


@register_cost("bops", "G", {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12})
def bops(unit: UnitFacts, bits: UnitBits) -> float:
    """Return MAC * w * a: bit operations for one image (2011.10680, section 3.4)."""
    return float(unit.macs * bits.weight * bits.activation)


def unit_facts(graph: FloatGraph) -> dict[str, UnitFacts]:
    """Return the facts of every unit of a network, in its order."""
    return {name: UnitFacts(name, graph.weights(name), graph.macs(name)) for name in graph.units}


def total_cost(cost: Cost, units: Iterable[UnitFacts], bits: Mapping[str, UnitBits]) -> float:
    """Return the sum of a cost over units, in its plain unit (bytes, bit operations).

    Args:
        cost: one of `COSTS`.
        units: the units to count.
        bits: unit name -> bits; may hold more units than are counted.
    """
    return sum(cost.of(unit, bits[unit.name]) for unit in units)


def save_costs(path: Path, facts: Mapping[str, UnitFacts], widths: Iterable[int]) -> None:
    """Write every unit's cost at every width, weights and input alike, in plain units (bytes, bit operations)."""
    widths = list(widths)
    units = {
        unit.name: {
            "weights": unit.weights,
            "macs": unit.macs,
            **{name: {str(b): cost.of(unit, UnitBits(b, b)) for b in widths} for name, cost in COSTS.items()},
        }
        for unit in facts.values()
    }
    write_json(path, "hawq-costs", 1, {"units": units})
