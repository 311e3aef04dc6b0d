"""Hold a bit config: unit name -> (weight bits, input activation bits). A scheme is its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hawq.errors import HawqError
from hawq.files import read_json, write_json
from hawq.runs import slug

__all__ = ["BitConfig", "UnitBits"]

_FORMAT, _VERSION = "hawq-bit-config", 1


class UnitBits(NamedTuple):
    """Bits of one unit: its weights and the activation it reads, each 2..8."""

    weight: int
    activation: int

    def __str__(self) -> str:
        """Return `4` for equal widths, else for example `W4A8`."""
        return f"{self.weight}" if self.weight == self.activation else f"W{self.weight}A{self.activation}"


@dataclass(frozen=True)
class BitConfig:
    """Assign bits to every unit of a network.

    Attributes:
        arch: the network's name as given to `-a`.
        scheme: the name of this assignment, for example `uniform8` or `bops0.5`.
        units: unit name -> bits, in the order of the network.
    """

    arch: str
    scheme: str
    units: Mapping[str, UnitBits]

    def __post_init__(self) -> None:
        """Check that every width is one the integer program can hold.

        Raises:
            HawqError: a width outside 2..8.
        """
        for unit, bits in self.units.items():
            if not all(isinstance(b, int) and 2 <= b <= 8 for b in bits):
                raise HawqError(f"bit config {self.scheme}: unit {unit} has bits {tuple(bits)}; allowed are 2..8")

    @staticmethod
    def default_path(arch: str, scheme: str, root: Path = Path("bit_configs")) -> Path:
        """Return `bit_configs/<arch>/<scheme>.json`."""
        return root / slug(arch) / f"{slug(scheme)}.json"

    def save(self, path: Path, **extra: object) -> None:
        """Write the config as JSON; `extra` (budgets, costs, versions) is kept beside the bits."""
        units = {name: {"weight": bits.weight, "activation": bits.activation} for name, bits in self.units.items()}
        write_json(path, _FORMAT, _VERSION, {"arch": self.arch, "scheme": self.scheme, "units": units, **extra})

    @classmethod
    def load(cls, path: Path) -> "BitConfig":
        """Read a config written by `save`.

        Raises:
            UsageError: no such file.
            HawqError: the file is torn, of another format, or holds widths outside 2..8.
        """
        document = read_json(path, _FORMAT, _VERSION)
        try:
            units = {name: UnitBits(bits["weight"], bits["activation"]) for name, bits in document["units"].items()}
            return cls(document["arch"], document["scheme"], units)
        except (KeyError, TypeError, AttributeError) as error:
            raise HawqError(f"{path}: every unit needs 'weight' and 'activation' bits ({error!r})") from error
