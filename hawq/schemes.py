"""Turn the name of a scheme into the bits of every unit of a network."""

import difflib
import logging
import re
from pathlib import Path

from hawq.bitconfig import WIDTHS, BitConfig, UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups
from hawq.hawq_configs import bit_config_of, is_dictionary, read_dictionary
from hawq.published import PUBLISHED_SOURCE, published_config
from hawq.scheme_names import canonical_name, names_budgets

__all__ = ["PINNED_BITS", "check_exists", "check_fits", "resolve_scheme", "scheme_of", "uniform"]

_LOG = logging.getLogger(__name__)

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
        name: `uniform1` .. `uniform8`, the name of a searched scheme (`<root>/<arch>/<name>.json`) or else of a
            published one, in any spelling that `canonical_name` reads; or a .json file, ours or a dictionary of HAWQ's.
        arch: the network's name.
        graph: the network; every entry must name one of its units.
        root: folder of searched schemes.

    Raises:
        UsageError: no such scheme; says how to make it. Or the name is one of another network's.
        HawqError: the config does not fit the network.
    """
    config = _from_file(Path(name), arch, graph) if name.endswith(".json") else _from_name(name, arch, graph, root)
    check_fits(config, graph)
    return config


def scheme_of(name: str, arch: str) -> str:
    """Return what the scheme is called that a name or file stands for: the folder of its checkpoint.

    Raises:
        UsageError: the name is one of another network's.
        HawqError: the file cannot be read.
    """
    path = Path(name)
    if not name.endswith(".json"):
        return canonical_name(name, arch)
    if not path.is_file():
        return path.stem
    return read_dictionary(path, arch)[0] if is_dictionary(path) else BitConfig.load(path).scheme


def _from_file(path: Path, arch: str, graph: FloatGraph) -> BitConfig:
    if not is_dictionary(path):
        return BitConfig.load(path)
    scheme, entries = read_dictionary(path, arch)
    return bit_config_of(entries, arch, scheme, graph)


def check_exists(name: str, arch: str, root: Path = Path("bit_configs")) -> None:
    """Check that there is such a scheme, before anything long is done for it; arguments as of `resolve_scheme`.

    Raises:
        UsageError: there is none, or the name is one of another network's.
        HawqError: the file cannot be read.
    """
    if not name.endswith(".json"):
        _found(name, arch, root)
    elif is_dictionary(Path(name)):
        read_dictionary(Path(name), arch)
    else:
        BitConfig.load(Path(name))


def _from_name(name: str, arch: str, graph: FloatGraph, root: Path) -> BitConfig:
    match _found(name, arch, root):
        case int(bits):
            return uniform(arch, graph, bits)
        case Path() as path:
            return BitConfig.load(path)
        case published:
            _LOG.warning(
                "%s does not exist: using the published %s of %s (%s); %s makes your own",
                BitConfig.default_path(arch, published.scheme, root), published.scheme, arch, PUBLISHED_SOURCE,
                _search(published.scheme, arch),
            )  # fmt: skip
            return published


def _found(name: str, arch: str, root: Path) -> int | Path | BitConfig:
    """Return the bits of a uniform scheme, the file of a searched one, or a published one."""
    scheme = canonical_name(name, arch)
    if match := re.fullmatch(r"uniform(\d+)", scheme):
        if (bits := int(match[1])) in WIDTHS:
            return bits
        raise UsageError(
            f"scheme {name!r}: codes have {WIDTHS[0]} to {WIDTHS[-1]} bits; take uniform8, uniform4 or another of "
            "these, or simulate 16 bits with `hawq ptq --method naive16`"
        )
    path = BitConfig.default_path(arch, scheme, root)
    if path.is_file():
        return path
    published = published_config(arch, scheme)
    if published is not None:
        return published
    if not names_budgets(scheme):
        raise UsageError(
            f"scheme {name!r} of {arch} needs {path}, which does not exist; name a scheme by its budget, "
            "such as bops0.5, or use uniform8, uniform4 or a .json file"
        )
    raise UsageError(
        f"scheme {name!r} of {arch} needs {path}, which does not exist; make it with {_search(scheme, arch)}, "
        "or use uniform8 or uniform4"
    )


def _search(scheme: str, arch: str) -> str:
    """Return the command that searches a scheme."""
    budgets = " ".join(f"--budget {budget}" for budget in scheme.split("+"))
    return f"`hawq search -a {arch} {budgets}`"


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
