"""Find what the names of HAWQ's modules mean in a float graph.

The names follow one rule, so no table of them is needed. A unit's *role* is its module path without `features`, `body`
and the trailing `conv` or `fc`: `features.stage1.unit1.body.conv1.conv` has the role `stage1.unit1.conv1`. Then

    quant_convbn1                     weights of conv1 of the block that the key names
    quant_X_convbn, quant_X           weights of X, X_conv or X_block: quant_identity_convbn, quant_init_convbn
    a role or a module path           weights of that unit
    quant_act                         input of the block: of its first unit and of those that read the same tensor
    quant_act2                        input of conv3
    quant_act_X, quant_act_before_X   input of X
    quant_input                       the image
    quant_act_int32                   the residual stream where it leaves the block, or the first unit outside of blocks
    quant_act_int32_X                 the output of X
"""

import difflib
import re
from enum import Enum

from hawq.graph.ir import Add, FloatGraph
from hawq.graph.structure import find_domains

__all__ = ["HawqNames", "KeyKind", "key_kind"]

_STREAM = re.compile(r"quant_act_int32(?:_(?P<unit>\w+))?")
_ACTIVATION = re.compile(r"quant_act(?P<index>\d*)")
_NAMED_ACTIVATION = re.compile(r"quant_act_(?:before_)?(?P<unit>\w+)")
_BLOCK_WEIGHT = re.compile(r"quant_convbn(?P<index>\d*)")
_NAMED_WEIGHT = re.compile(r"quant_(?P<unit>\w+?)(?:_convbn)?")


class KeyKind(Enum):
    """What a module of HAWQ's quantizes. INPUT: what units read. STREAM: a 16-bit tensor. WEIGHTS: of a unit."""

    INPUT = "input"
    STREAM = "stream"
    WEIGHTS = "weights"


def key_kind(key: str) -> KeyKind:
    """Return what a module's name says it quantizes, whether or not the network has such a thing."""
    last = key.rpartition(".")[2]
    if _STREAM.fullmatch(last):
        return KeyKind.STREAM
    return KeyKind.INPUT if last == "quant_input" or last.startswith("quant_act") else KeyKind.WEIGHTS


def _role(path: str) -> str:
    parts = [part for part in path.split(".") if part not in ("features", "body")]
    while len(parts) > 1 and parts[-1] in ("conv", "fc"):
        parts.pop()
    return ".".join(parts)


class HawqNames:
    """Find the units and tensors of a graph that a key means."""

    def __init__(self, graph: FloatGraph) -> None:
        self._graph, self._domains = graph, find_domains(graph)
        self._roles = {_role(unit): unit for unit in reversed(list(graph.units))}  # the first of a role has it

    def weights(self, key: str) -> list[str]:
        """Return the unit whose weights a key means, or nothing."""
        if key in self._graph.units:
            return [key]
        block, _, last = _role(key).rpartition(".")
        if match := _BLOCK_WEIGHT.fullmatch(last):
            return self._named(block, f"conv{match['index']}")
        if match := _NAMED_WEIGHT.fullmatch(last):
            return self._named(block, match["unit"])
        return self._named(block, last)

    def readers(self, key: str) -> list[str]:
        """Return the units whose input a key means, or nothing."""
        block, _, last = _role(key).rpartition(".")
        if last == "quant_input":
            domain = self._domains[self._graph.input.name]
            return [] if block else list(domain.readers)
        if match := _ACTIVATION.fullmatch(last):
            return self._named(block, f"conv{int(match['index']) + 1}") if match["index"] else self._first(block)
        match = _NAMED_ACTIVATION.fullmatch(last)
        return self._named(block, match["unit"]) if match else []

    def stream(self, key: str) -> str | None:
        """Return the tensor whose 16-bit codes a key means, or None."""
        block, _, last = _role(key).rpartition(".")
        match = _STREAM.fullmatch(last)
        if match is None:
            return None
        if match["unit"]:
            return next(iter(self._named(block, match["unit"])), None)
        inside = self._inside(block) if block else list(self._graph.units)[:1]
        if not inside:
            return None
        readers = self._graph.readers(inside[-1])
        if block and len(readers) == 1 and isinstance(readers[0].op, Add):  # the next block's sum is not the only one
            return readers[0].name
        return inside[-1]

    def nearest(self, key: str) -> str:
        """Return the unit whose role is most like a key."""
        text = _role(key).replace("quant_", "").replace("convbn", "conv")
        return self._roles[difflib.get_close_matches(text, self._roles, n=1, cutoff=0)[0]]

    def _named(self, block: str, name: str) -> list[str]:
        for candidate in (name, f"{name}_conv", f"{name}_block"):
            role = f"{block}.{candidate}" if block else candidate
            if role in self._roles:
                return [self._roles[role]]
        return []

    def _first(self, block: str) -> list[str]:
        """Return the first unit of a block and those of the block that read the same tensor."""
        inside = self._inside(block)
        if not inside:
            return []
        readers = self._domains[self._graph.nodes[inside[0]].inputs[0]].readers
        return [unit for unit in inside if unit in readers]

    def _inside(self, block: str) -> list[str]:
        """Return the units of a block, in graph order."""
        return [unit for unit in self._graph.units if block and _role(unit).startswith(f"{block}.")]
