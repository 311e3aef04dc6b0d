"""Read bit configs as HAWQ's `bit_config.py` writes them: a dictionary from the names of its modules to bits.

A key's last part says what it means (`hawq.hawq_names`). The residual stream has 16 bits in HAWQ and here: no choice,
not read. A dictionary without a single activation gives its bits to weights and inputs alike.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.hawq_names import HawqNames, KeyKind, key_kind
from hawq.scheme_names import canonical_name

__all__ = ["bit_config_of", "is_dictionary", "read_dictionary"]


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
    names = HawqNames(graph)
    for key, value in entries.items():
        kind = key_kind(key)
        if kind is KeyKind.STREAM:
            continue
        is_input = kind is KeyKind.INPUT
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


def _bits(scheme: str, key: str, value: object) -> int:
    if isinstance(value, list) and len(value) == 2 and value[1] == "hook":
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool):
        raise HawqError(f'bit config {scheme}: {key!r} has {value!r}; write bits or [bits, "hook"]')
    return value
