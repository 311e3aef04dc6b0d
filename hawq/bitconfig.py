"""Hold a bit config: unit name -> (weight bits, input activation bits). A scheme is its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hawq.errors import HawqError
from hawq.files import read_json, write_json
from hawq.runs import slug

__all__ = ["WIDTHS", "BitConfig", "UnitBits", "UnitQuantizers"]

WIDTHS = range(1, 9)
"""Bits that codes of units can have: a tensor of a program has one byte for each."""

_FORMAT, _VERSION = "hawq-bit-config", 1


class UnitBits(NamedTuple):
    """Bits of one unit: its weights and the activation it reads, each 1..8."""

    weight: int
    activation: int

    def __str__(self) -> str:
        """Return `4` for equal widths, else for example `W4A8`."""
        return f"{self.weight}" if self.weight == self.activation else f"W{self.weight}A{self.activation}"


class UnitQuantizers(NamedTuple):
    """Names of the quantizers of one unit: of its weights and of the activation it reads; None: the network's."""

    weight: str | None = None
    activation: str | None = None


@dataclass(frozen=True)
class BitConfig:
    """Assign bits to every unit of a network, and quantizers to those that have their own.

    Attributes:
        arch: the network's name as given to `-a`.
        scheme: the name of this assignment, for example `uniform8` or `bops0.5`.
        units: unit name -> bits, in the order of the network.
        quantizers: unit name -> quantizers, for the units that name one.
    """

    arch: str
    scheme: str
    units: Mapping[str, UnitBits]
    quantizers: Mapping[str, UnitQuantizers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every width is one the integer program can hold, and that quantizers belong to units.

        Raises:
            HawqError: a width outside 1..8, or a quantizer of no unit.
        """
        for unit, bits in self.units.items():
            if not all(isinstance(b, int) and b in WIDTHS for b in bits):
                raise HawqError(f"bit config {self.scheme}: unit {unit} has bits {tuple(bits)}; allowed are 1..8")
        for unit in self.quantizers:
            if unit not in self.units:
                raise HawqError(f"bit config {self.scheme}: {unit} has a quantizer but no bits")

    @staticmethod
    def default_path(arch: str, scheme: str, root: Path = Path("bit_configs")) -> Path:
        """Return `bit_configs/<arch>/<scheme>.json`."""
        return root / slug(arch) / f"{slug(scheme)}.json"

    def save(self, path: Path, **extra: object) -> None:
        """Write the config as JSON; `extra` (budgets, costs, versions) is kept beside the bits."""
        units = {name: self._entry(name) for name in self.units}
        write_json(path, _FORMAT, _VERSION, {"arch": self.arch, "scheme": self.scheme, "units": units, **extra})

    def _entry(self, unit: str) -> dict[str, object]:
        named = self.quantizers.get(unit, UnitQuantizers())._asdict()
        return self.units[unit]._asdict() | {f"{key}_quantizer": name for key, name in named.items() if name}

    @classmethod
    def load(cls, path: Path) -> "BitConfig":
        """Read a config written by `save`.

        Raises:
            UsageError: no such file.
            HawqError: the file is torn, of another format, or holds widths outside 1..8.
        """
        document = read_json(path, _FORMAT, _VERSION)
        try:
            entries = document["units"]
            units = {name: UnitBits(entry["weight"], entry["activation"]) for name, entry in entries.items()}
            named = {
                name: UnitQuantizers(*(entry.get(f"{key}_quantizer") for key in UnitQuantizers._fields))
                for name, entry in entries.items()
            }
            return cls(document["arch"], document["scheme"], units, {n: q for n, q in named.items() if any(q)})
        except (KeyError, TypeError, AttributeError) as error:
            raise HawqError(f"{path}: every unit needs 'weight' and 'activation' bits ({error!r})") from error
