"""Find what quantization needs to know about a network, from its graph and never from names.

*Domains* are sets of tensors that share one quantizer: max pool, flatten and nearest up-sampling move codes without
changing them, and a concatenation's inputs must have its scale, so a tensor that only a concatenation reads is
produced at that scale.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hawq.graph.ir import (
    Add,
    Concat,
    Conv2d,
    Flatten,
    FloatGraph,
    Input,
    Linear,
    MaxPool2d,
    Mul,
    Node,
    Norm,
    Resize,
    Unary,
)
from hawq.graph.signs import non_negative

__all__ = ["Domain", "find_domains", "pinned_units", "tie_groups"]


@dataclass(frozen=True)
class Domain:
    """Describe a set of tensors that share one quantizer: bits, sign, scale and zero point.

    Attributes:
        root: the tensor at which training observes and fake-quantizes. It is the concatenation that joins the domain
            (the last one), or else the tensor that none of the ops that move codes makes of another of the domain.
        members: names of all tensors of the domain, in graph order.
        readers: names of the units that read a member, in graph order. They share activation bits.
        narrow: whether a Unary, or a Mul as its second factor, reads a member: at most 8 bits of it, as units do.
        stream: whether it is kept in 16-bit codes: an Add makes it, an Add or a Norm reads a member, or it is the
            network's output, or what one is interpolated from, and no accumulator.
        signed: whether it may hold negative values.
        is_input: whether it holds the image.
        accumulator: whether it is the raw accumulator of a last unit (only flattened, if anything): an output, which
            has no quantizer.
    """

    root: str
    members: tuple[str, ...]
    readers: tuple[str, ...]
    narrow: bool
    stream: bool
    signed: bool
    is_input: bool
    accumulator: bool


def find_domains(graph: FloatGraph) -> dict[str, Domain]:
    """Return the domain of every tensor of a graph without dead nodes."""
    positive = non_negative(graph)
    found: dict[str, Domain] = {}
    for root, members in _members_by_root(graph).items():
        inside = set(members)
        outside = [node for node in _readers(graph, members) if node.name not in inside]
        readers = tuple(node.name for node in outside if isinstance(node.op, Conv2d | Linear))
        is_output = not inside.isdisjoint(graph.outputs.values())
        accumulator = is_output and not outside and _is_accumulator(graph, root, members)
        domain = Domain(
            root=root,
            members=tuple(members),
            readers=readers,
            narrow=any(_reads_narrow(node, inside) for node in outside),
            stream=isinstance(graph.nodes[root].op, Add)
            or any(isinstance(node.op, Add | Norm) or _resizes_output(graph, node) for node in outside)
            or (is_output and not accumulator),
            signed=root not in positive,
            is_input=isinstance(graph.nodes[root].op, Input),
            accumulator=accumulator,
        )
        found.update(dict.fromkeys(members, domain))
    return {name: found[name] for name in graph.nodes}


def tie_groups(graph: FloatGraph) -> list[tuple[str, ...]]:
    """Return the groups of two or more units that read one domain and so share their activation bits."""
    domains = dict.fromkeys(find_domains(graph).values())
    return [domain.readers for domain in domains if len(domain.readers) > 1]


def pinned_units(graph: FloatGraph) -> set[str]:
    """Return the units that stay at 8 bits: first ones, which read the image, last ones, and all that are tied to them.

    A last unit is one from which an output is reached through no other unit.
    """
    first = {name for domain in find_domains(graph).values() if domain.is_input for name in domain.readers}
    last: set[str] = set()
    pending, seen = list(graph.outputs.values()), set()
    while pending:
        name = pending.pop()
        if name in graph.units:
            last.add(name)
        elif name not in seen:
            seen.add(name)
            pending.extend(graph.nodes[name].inputs)
    pinned = first | last
    return pinned.union(*(group for group in tie_groups(graph) if pinned.intersection(group)))


def _members_by_root(graph: FloatGraph) -> dict[str, list[str]]:
    """Return root -> members: codes that move together first, then what concatenations absorb."""
    root_of: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        root = root_of[node.inputs[0]] if _moves(node) else node.name
        root_of[node.name] = root
        members.setdefault(root, []).append(node.name)
    for node in graph.nodes.values():
        if not isinstance(node.op, Concat):
            continue
        for root in dict.fromkeys(root_of[name] for name in node.inputs):
            if _only_joined(graph, members[root], node):
                absorbed = members.pop(root)
                members[node.name] += absorbed
                root_of.update(dict.fromkeys(absorbed, node.name))
    order = {name: position for position, name in enumerate(graph.nodes)}
    return {root: sorted(names, key=order.__getitem__) for root, names in members.items()}


def _only_joined(graph: FloatGraph, members: list[str], concat: Node) -> bool:
    """Tell whether `concat` is all that reads the members, their own pools and joins aside."""
    inside = {*members, concat.name}
    needed = {graph.input.name, *graph.outputs.values()}
    return needed.isdisjoint(members) and all(node.name in inside for node in _readers(graph, members))


def _readers(graph: FloatGraph, names: Iterable[str]) -> list[Node]:
    wanted = set(names)
    return [node for node in graph.nodes.values() if wanted.intersection(node.inputs)]


def _moves(node: Node) -> bool:
    """Tell whether a node puts out codes of its input as they are."""
    return isinstance(node.op, MaxPool2d | Flatten) or (isinstance(node.op, Resize) and node.op.moves)


def _resizes_output(graph: FloatGraph, node: Node) -> bool:
    return isinstance(node.op, Resize) and node.name in graph.outputs.values()


def _reads_narrow(node: Node, members: set[str]) -> bool:
    return (isinstance(node.op, Unary) and node.inputs[0] in members) or (
        isinstance(node.op, Mul) and node.inputs[1] in members
    )


def _is_accumulator(graph: FloatGraph, root: str, members: list[str]) -> bool:
    op = graph.nodes[root].op
    flattened = all(isinstance(graph.nodes[name].op, Flatten) for name in members if name != root)
    return isinstance(op, Conv2d | Linear) and op.clamp is None and flattened
