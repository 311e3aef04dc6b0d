"""Keep measured latencies of every unit at every pair of bits, and offer them to the search as a cost.

A table holds for one network on one device. The sum over units is what a budget limits; what belongs to no unit
(pools, input quantization, additions and requantizations with a kernel of their own) is kept apart as `rest`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units
from hawq.hardware import Device, present_device
from hawq.schemes import PINNED_BITS
from search.costs import Cost, UnitFacts, unit_facts

__all__ = ["LatencyTable", "Timing", "UniformRun", "check_fits", "latency_cost", "network_fingerprint"]


@dataclass(frozen=True)
class Timing:
    """State a latency per batch in milliseconds: median, 10th and 90th percentile of the runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float


@dataclass(frozen=True)
class UniformRun:
    """Hold what was measured with all searched units at the same bits, the pinned ones at 8.

    Attributes:
        units: unit -> latency of its kernel, with the ops that it computes behind the unit's own.
        rest: of everything that belongs to no unit.
        whole: of the network as it is deployed, measured undivided.
    """

    units: Mapping[str, Timing]
    rest: Timing
    whole: Timing


@dataclass(frozen=True)
class LatencyTable:
    """Hold the latencies of one network on one device; all of them per batch.

    Attributes:
        arch: name of the network.
        target: `llvm` or `cuda`.
        batch: images per call.
        threads: CPU threads; None where it is not known.
        device: what it was measured on.
        facts: sizes of the units; they must agree with the network's.
        fingerprint: of the network, see `network_fingerprint`; None for a published table.
        units: unit -> bits -> latency. A published table leaves out the pinned units, which cost 0 there.
        rest: bits of a uniform run -> latency of what belongs to no unit.
        whole: bits of a uniform run -> latency of the network, measured undivided.
    """

    arch: str
    target: str
    batch: int
    threads: int | None
    device: Device
    facts: Mapping[str, UnitFacts]
    fingerprint: str | None
    units: Mapping[str, Mapping[UnitBits, Timing]]
    rest: Mapping[UnitBits, Timing] = field(default_factory=dict)
    whole: Mapping[UnitBits, Timing] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        arch: str,
        graph: FloatGraph,
        runs: Mapping[UnitBits, UniformRun],
        *,
        target: str,
        batch: int,
        threads: int,
        device: Device,
    ) -> "LatencyTable":
        """Return the table of a network from uniform runs.

        Pinned units are measured at 8 bits in every run; the run with the middle median counts.
        """
        pinned, facts = pinned_units(graph), unit_facts(graph)
        found: dict[str, dict[UnitBits, list[Timing]]] = {name: {} for name in facts}
        for bits, run in runs.items():
            for name, timing in run.units.items():
                found[name].setdefault(PINNED_BITS if name in pinned else bits, []).append(timing)
        units = {name: {bits: _middle(timings) for bits, timings in row.items()} for name, row in found.items()}
        rest, whole = ({bits: getattr(run, part) for bits, run in runs.items()} for part in ("rest", "whole"))
        return cls(arch, target, batch, threads, device, facts, network_fingerprint(graph), units, rest, whole)

    @property
    def published(self) -> bool:
        """Whether it comes from a publication and was not measured with this project's kernels."""
        return self.fingerprint is None

    @property
    def origin(self) -> str:
        """Where the numbers come from, for people: `published, Tesla T4, batch 8`."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{'published' if self.published else 'measured'}, {self.device}, batch {self.batch}{threads}"

    @property
    def pairs(self) -> tuple[UnitBits, ...]:
        """Bits that some unit has a latency at, in ascending order."""
        return tuple(sorted({bits for row in self.units.values() for bits in row}))

    def total(self, bits: UnitBits) -> float:
        """Return the sum over units in milliseconds, all at the given bits; units without them (pinned) at 8."""
        return sum((row.get(bits) or row[PINNED_BITS]).median_ms for row in self.units.values())

    def of_unit(self, unit: UnitFacts, bits: UnitBits) -> float:
        """Return the latency of a unit in milliseconds.

        Raises:
            UsageError: the unit was not measured, or not at these bits.
        """
        row = self.units.get(unit.name)
        if row is None and self.published:
            return 0.0
        if row is None:
            raise UsageError(
                f"unit {unit.name!r} is not in the latency table of {self.arch}; "
                "measure this network with `hawq profile`"
            )
        if bits not in row:
            raise UsageError(self._lacks(unit.name, bits))
        return row[bits].median_ms

    def _lacks(self, unit: str, bits: UnitBits) -> str:
        has = ", ".join(map(str, sorted(self.units[unit])))
        start = f"the latency table has unit {unit} at {has} bits and not at {bits}"
        if self.published:
            return f"{start}: allow only those (--bits 4,8), or measure a table of your own with `hawq profile`"
        pairs = {*self.pairs, bits}
        widths = ",".join(map(str, sorted({width for pair in pairs for width in pair})))
        apart = " --apart" if any(pair.weight != pair.activation for pair in pairs) else ""
        return f"{start}: measure more with `hawq profile -a {self.arch} --target {self.target} --bits {widths}{apart}`"


def _middle(timings: list[Timing]) -> Timing:
    return sorted(timings, key=lambda timing: timing.median_ms)[(len(timings) - 1) // 2]


def network_fingerprint(graph: FloatGraph) -> str:
    """Return a hash of what latency depends on: input size, unit names, weight shapes and MACs, not the weights."""
    units = [[name, list(graph.weight_shape(name)), graph.macs(name)] for name in graph.units]
    return hashlib.sha256(json.dumps([list(graph.input.shape), units]).encode()).hexdigest()


def latency_cost(table: LatencyTable) -> Cost:
    """Return the cost `latency` in milliseconds, to be handed to `parse_budget` beside `COSTS`."""
    return Cost("latency", (), "ms", {"ms": 1, "us": 1e-3}, table.of_unit)


def check_fits(table: LatencyTable, graph: FloatGraph, *, target: str | None = None, foreign: bool = False) -> None:
    """Refuse the table of another network, target or device.

    A published table is one of another device by nature and chosen deliberately, so its device is not compared.

    Args:
        table: as read.
        graph: the network that is searched.
        target: where it is to run; None for whatever the table is for.
        foreign: allow a table measured on another device or for another target.

    Raises:
        UsageError: it is of another network, or of another device and not `foreign`.
    """
    _check_network(table, graph)
    if foreign or table.published:
        return
    advice = (
        f"measure here with `hawq profile -a {table.arch} --target {target or table.target}`, "
        "or allow a table of another device with --foreign-table"
    )
    if target is not None and target != table.target:
        raise UsageError(f"the latency table is for target {table.target}, wanted is {target}: {advice}")
    try:
        here = present_device(table.target)
    except HawqError as error:
        raise UsageError(
            f"the latency table is of {table.device}, and it cannot be compared: {error}; {advice}"
        ) from error
    if not here.matches(table.device):
        raise UsageError(f"the latency table is of {table.device}, and this machine is {here}: {advice}")


def _check_network(table: LatencyTable, graph: FloatGraph) -> None:
    advice = f"measure this network with `hawq profile`, at the same --size, or name the table of {table.arch}"
    facts, pinned = unit_facts(graph), pinned_units(graph)
    for name, unit in table.facts.items():
        if name not in facts:
            raise UsageError(f"the latency table of {table.arch} has unit {name!r}, this network has not: {advice}")
        if unit != facts[name]:
            there, here = (f"{f.weights:,} weights and {f.macs:,} MACs" for f in (unit, facts[name]))
            raise UsageError(f"unit {name!r} has {there} in the latency table and {here} in this network: {advice}")
    missing = [name for name in facts if name not in table.facts and not (table.published and name in pinned)]
    if missing:
        raise UsageError(f"the latency table of {table.arch} lacks unit {missing[0]!r} of this network: {advice}")
    if not table.published and table.fingerprint != network_fingerprint(graph):
        raise UsageError(f"the latency table of {table.arch} is of a network of other shapes: {advice}")
