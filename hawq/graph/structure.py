"""Find, from the graph alone, which tensors share a quantizer, which units share bits and which stay at 8 bits."""

from collections.abc import Iterator
from dataclasses import dataclass

from hawq.graph import ir
from hawq.graph.ir import FloatGraph, Node

__all__ = ["Domain", "find_domains", "pinned_units", "tie_groups"]

_Moves = ir.MaxPool2d | ir.Flatten
"""Ops whose output has the codes of their input."""


@dataclass(frozen=True)
class Domain:
    """A set of tensors that share one quantizer.

    A max pool or flatten keeps the codes of its input. A tensor that only one concat reads is produced in the scale of
    the concat's output, so both are one domain.

    Attributes:
        root: the one tensor whose values set the range: the producer, or the concat it flows into.
        members: all tensors of the domain, in execution order.
        readers: units that read a member.
        stream: carries a skip connection (an addition or a lone batch norm reads it, or it holds the logits of a
            network that does not end in a unit): kept in 16-bit codes.
        signed: may be negative.
        is_input: holds the image.
        accumulator: holds logits that stay int32 accumulators and need no quantizer.
    """

    root: str
    members: tuple[str, ...]
    readers: tuple[str, ...]
    stream: bool
    signed: bool
    is_input: bool
    accumulator: bool


def find_domains(graph: FloatGraph) -> dict[str, Domain]:
    """Return the domain of every tensor of the graph."""
    groups = _Groups(graph)
    for node in graph.nodes.values():
        if isinstance(node.op, _Moves):
            groups.join(node.inputs[0], node.name)
    for node in reversed(graph.nodes.values()):  # outer concats first: what flows into them is then known
        if isinstance(node.op, ir.Concat):
            for source in node.inputs:
                if groups.outside_readers(source) == {node.name} and source != graph.input.name:
                    groups.join(source, node.name)
    non_negative = _non_negative(graph)
    domains: dict[str, Domain] = {}
    for members in groups.all():
        domain = _domain(graph, members, non_negative)
        domains.update(dict.fromkeys(members, domain))
    return {name: domains[name] for name in graph.nodes}


def tie_groups(graph: FloatGraph) -> list[tuple[str, ...]]:
    """Return the groups of two or more units that read one domain and therefore share activation bits."""
    return [domain.readers for domain in dict.fromkeys(find_domains(graph).values()) if len(domain.readers) > 1]


def pinned_units(graph: FloatGraph) -> set[str]:
    """Return the units that stay at 8 bits: those that read the image, and those no other unit follows."""
    first = {name for name, domain in find_domains(graph).items() if domain.is_input}
    return {name for name, unit in graph.units.items() if unit.inputs[0] in first} | set(_last_units(graph))


def _last_units(graph: FloatGraph) -> Iterator[str]:
    pending, seen = [graph.output], set()
    while pending:
        node = graph.nodes[pending.pop()]
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.name in graph.units:
            yield node.name
        else:
            pending.extend(node.inputs)


class _Groups:
    """Disjoint sets of tensor names."""

    def __init__(self, graph: FloatGraph) -> None:
        self._graph = graph
        self._members = {name: [name] for name in graph.nodes}  # one list object per group

    def join(self, a: str, b: str) -> None:
        if self._members[a] is not self._members[b]:
            joined = self._members[a] + self._members[b]
            for name in joined:
                self._members[name] = joined

    def all(self) -> list[tuple[str, ...]]:
        order = {name: index for index, name in enumerate(self._graph.nodes)}
        groups = {id(group): group for group in self._members.values()}
        return [tuple(sorted(group, key=order.__getitem__)) for group in groups.values()]

    def outside_readers(self, name: str) -> set[str]:
        """Return the nodes that read the group of `name` and do not merely move its codes within the group."""
        group = set(self._members[name])
        return {
            reader.name
            for member in group
            for reader in self._graph.readers(member)
            if not (reader.name in group and isinstance(reader.op, _Moves))
        }


def _domain(graph: FloatGraph, members: tuple[str, ...], non_negative: set[str]) -> Domain:
    root = [name for name in members if not isinstance(graph.nodes[name].op, _Moves)][-1]
    readers = [reader for name in members for reader in graph.readers(name)]
    units = tuple(name for name in graph.units if any(reader.name == name for reader in readers))
    outside = [reader for reader in readers if reader.name not in members]
    accumulator = graph.output in members and not outside and _ends_in_accumulators(graph.nodes[root])
    carries_skip = any(isinstance(reader.op, ir.Add | ir.Norm) for reader in readers)
    return Domain(
        root=root,
        members=members,
        readers=units,
        stream=carries_skip or (graph.output in members and not accumulator),
        signed=root not in non_negative,
        is_input=graph.input.name in members,
        accumulator=accumulator,
    )


def _ends_in_accumulators(node: Node) -> bool:
    return isinstance(node.op, ir.Conv2d | ir.Linear) and node.op.clamp is None


def _non_negative(graph: FloatGraph) -> set[str]:
    """Return the tensors that are provably never negative."""
    found: set[str] = set()
    for node in graph.nodes.values():
        limits: ir.Clamp | None = getattr(node.op, "clamp", None)
        clamped = limits is not None and limits.lo is not None and limits.lo >= 0
        passes = isinstance(node.op, ir.Add | ir.Concat | ir.AvgPool2d | _Moves)
        if clamped or (passes and all(source in found for source in node.inputs)):
            found.add(node.name)
    return found
