"""Read bit configs as HAWQ's `bit_config.py` writes them: a dictionary from the names of its modules to bits.

The names follow one rule, so no table of them is needed. A unit's *role* is its module path without `features`, `body`
and the trailing `conv` or `fc`: `features.stage1.unit1.body.conv1.conv` has the role `stage1.unit1.conv1`. Then

    quant_convbn1                     weights of conv1 of the block that the key names
    quant_X_convbn, quant_X           weights of X, X_conv or X_block: quant_identity_convbn, quant_init_convbn
    a role or a module path           weights of that unit
    quant_act                         input of the block: of its first unit and of those that read the same tensor
    quant_act2                        input of conv3
    quant_act_X, quant_act_before_X   input of X
    quant_input                       the image
    quant_act_int32...                the residual stream, 16 bits in HAWQ and here: no choice, not read

A dictionary without a single activation gives its bits to weights and inputs alike.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import find_domains
from hawq.scheme_names import canonical_name

__all__ = ["bit_config_of", "is_dictionary", "read_dictionary"]

_STREAM = re.compile(r"quant_act_int32\w*")
_ACTIVATION = re.compile(r"quant_act(?P<index>\d*)")
_NAMED_ACTIVATION = re.compile(r"quant_act_(?:before_)?(?P<unit>\w+)")
_BLOCK_WEIGHT = re.compile(r"quant_convbn(?P<index>\d*)")
_NAMED_WEIGHT = re.compile(r"quant_(?P<unit>\w+?)(?:_convbn)?")


def is_dictionary(path: Path) -> bool:
    """Tell whether a file holds a JSON object that is none of hawq's own documents, which name their format."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "format" not in document


def read_dictionary(path: Path, arch: str) -> tuple[str, dict[str, object]]:
    """Return the name and the entries of a file `{key: bits, ...}` or `{"bit_config_<arch>_<scheme>": {...}}`.

    Args:
        path: the JSON file; without a key of its own the scheme is called as the file.
        arch: the network's name. Of several schemes in the file, exactly one must be for it.

    Raises:
        UsageError: the file's only scheme is for another network.
        HawqError: there is no scheme for the network, or more than one.
    """
    document = json.loads(path.read_text())
    if not document or not all(isinstance(entries, dict) for entries in document.values()):
        return canonical_name(path.stem, arch), document
    if len(document) > 1:
        document = {key: entries for key, entries in document.items() if key.startswith(f"bit_config_{arch}_")}
    if len(document) != 1:
        found = f": {', '.join(document)}" if document else ""
        raise HawqError(f"{path} holds {len(document)} schemes of {arch}{found}; keep exactly one in the file")
    ((key, entries),) = document.items()
    return canonical_name(key, arch), entries


def bit_config_of(entries: Mapping[str, object], arch: str, scheme: str, graph: FloatGraph) -> BitConfig:
    """Return the bit config that a dictionary of HAWQ's stands for.

    Args:
        entries: key -> bits, or key -> [bits, "hook"].
        arch: the network's name.
        scheme: name of the bit config.
        graph: the network.

    Raises:
        HawqError: a key that matches no unit, two that contradict each other, or a unit without bits.
    """
    weights: dict[str, int] = {}
    inputs: dict[str, int] = {}
    names = _Names(graph)
    for key, value in entries.items():
        last = key.rpartition(".")[2]
        if _STREAM.fullmatch(last):
            continue
        is_input = last == "quant_input" or last.startswith("quant_act")
        table, units = (inputs, names.readers(key)) if is_input else (weights, names.weights(key))
        if not units:
            raise HawqError(f"bit config {scheme}: {key!r} matches no unit; the nearest is {names.nearest(key)!r}")
        bits = _bits(scheme, key, value)
        for unit in units:
            if table.setdefault(unit, bits) != bits:
                raise HawqError(f"bit config {scheme}: {key!r} gives {unit} {bits} bits, another key {table[unit]}")
    inputs = inputs or weights
    for what, table in (("weight", weights), ("input activation", inputs)):
        missing = [unit for unit in graph.units if unit not in table]
        if missing:
            raise HawqError(f"bit config {scheme} gives no {what} bits for {len(missing)} units, first {missing[0]!r}")
    return BitConfig(arch, scheme, {unit: UnitBits(weights[unit], inputs[unit]) for unit in graph.units})


def _role(path: str) -> str:
    parts = [part for part in path.split(".") if part not in ("features", "body")]
    while len(parts) > 1 and parts[-1] in ("conv", "fc"):
        parts.pop()
    return ".".join(parts)


def _bits(scheme: str, key: str, value: object) -> int:
    if isinstance(value, list) and len(value) == 2 and value[1] == "hook":
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool):
        raise HawqError(f'bit config {scheme}: {key!r} has {value!r}; write bits or [bits, "hook"]')
    return value


class _Names:
    """Find the units that a key means."""

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
        inside = [unit for unit in self._graph.units if _role(unit).startswith(f"{block}.")]
        if not block or not inside:
            return []
        readers = self._domains[self._graph.nodes[inside[0]].inputs[0]].readers
        return [unit for unit in inside if unit in readers]
