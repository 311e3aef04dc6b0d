"""Turn the name of a scheme into the bits of every unit of a network."""

import difflib
import re
from pathlib import Path

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups

__all__ = ["PINNED_BITS", "check_fits", "resolve_scheme", "uniform"]

PINNED_BITS = UnitBits(8, 8)
"""Bits of the first and last units in every scheme."""


def uniform(arch: str, graph: FloatGraph, bits: int) -> BitConfig:
    """Return `uniform<bits>`: every unit at the same width, the pinned ones at 8."""
    pinned = pinned_units(graph)
    units = {name: PINNED_BITS if name in pinned else UnitBits(bits, bits) for name in graph.units}
    return BitConfig(arch, f"uniform{bits}", units)


def resolve_scheme(name: str, arch: str, graph: FloatGraph, root: Path = Path("bit_configs")) -> BitConfig:
    """Return the bit config a scheme name or file stands for.

    Args:
        name: `uniform2` .. `uniform8`, the name of a searched scheme (`<root>/<arch>/<name>.json`), or a .json file.
        arch: the network's name.
        graph: the network; every entry must name one of its units.
        root: folder of searched schemes.

    Raises:
        UsageError: no such scheme; says how to make it.
        HawqError: the config does not fit the network.
    """
    if match := re.fullmatch(r"uniform([2-8])", name):
        return uniform(arch, graph, int(match[1]))
    path = Path(name) if name.endswith(".json") else BitConfig.default_path(arch, name, root)
    if not path.is_file():
        raise UsageError(
            f"scheme {name!r} of {arch} needs {path}, which does not exist; make it with "
            f"`hawq search -a {arch} --budget {name}`, or use uniform8 or uniform4"
        )
    config = BitConfig.load(path)
    check_fits(config, graph)
    return config


def check_fits(config: BitConfig, graph: FloatGraph) -> None:
    """Check that a config gives bits to exactly the units of a network, and that tied units agree.

    Raises:
        HawqError: it does not; the message names the unit, and for an unknown one the nearest that exists.
    """
    for unit in config.units:
        if unit not in graph.units:
            near = difflib.get_close_matches(unit, graph.units, n=1, cutoff=0)
            raise HawqError(f"bit config {config.scheme}: {unit!r} matches no unit; the nearest is {near[0]!r}")
    missing = [unit for unit in graph.units if unit not in config.units]
    if missing:
        raise HawqError(f"bit config {config.scheme} gives no bits for {len(missing)} units, first {missing[0]!r}")
    for group in tie_groups(graph):
        widths = {unit: config.units[unit].activation for unit in group}
        if len(set(widths.values())) > 1:
            raise HawqError(f"bit config {config.scheme}: units that read one tensor need equal bits, given {widths}")
