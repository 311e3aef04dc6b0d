"""Hold sensitivities and keep them in `sensitivity.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from hawq.files import read_json, write_json

__all__ = ["Sensitivity", "UnitSensitivity"]

_FORMAT, _VERSION = "hawq-sensitivity", 1


@dataclass(frozen=True)
class UnitSensitivity:
    """Tell what few bits cost one unit.

    Attributes:
        weights: number of weights n.
        trace: estimate of the Hessian trace Tr(H) over the folded weights; None for methods that need none.
        trace_error: its standard error; None where a single probe gives none.
        omega: bits -> Omega, in proportion to the expected rise of the loss, never negative.
    """

    weights: int
    trace: float | None
    trace_error: float | None
    omega: Mapping[int, float]


@dataclass(frozen=True)
class Sensitivity:
    """Hold the sensitivities of a network.

    Attributes:
        method: registered name of the estimator.
        key: hash of network, data and options; equal keys mean equal results.
        options: what the estimator was told.
        probes: how many were drawn; 0 for methods without.
        environment: device and package versions.
        units: unit -> sensitivity, in the order of the network.
    """

    method: str
    key: str
    options: Mapping[str, Any]
    probes: int
    environment: Mapping[str, str]
    units: Mapping[str, UnitSensitivity]

    def omega(self, unit: str, bits: UnitBits) -> float:
        """Return Omega of a unit at given bits."""
        return self.units[unit].omega[bits.weight]

    def save(self, path: Path) -> None:
        """Write the sensitivities as JSON."""
        units = {
            name: {
                "weights": unit.weights,
                "trace": unit.trace,
                "trace_error": unit.trace_error,
                "omega": {str(bits): value for bits, value in unit.omega.items()},
            }
            for name, unit in self.units.items()
        }
        head = {"method": self.method, "key": self.key, "options": dict(self.options), "probes": self.probes}
        write_json(path, _FORMAT, _VERSION, {**head, "environment": dict(self.environment), "units": units})

    @classmethod
    def load(cls, path: Path) -> "Sensitivity":
        """Read sensitivities written by `save`.

        Raises:
            UsageError: no such file.
            HawqError: the file is torn or of another format.
        """
        document = read_json(path, _FORMAT, _VERSION)
        try:
            units = {
                name: UnitSensitivity(
                    unit["weights"],
                    unit["trace"],
                    unit["trace_error"],
                    {int(bits): value for bits, value in unit["omega"].items()},
                )
                for name, unit in document["units"].items()
            }
            return cls(
                document["method"],
                document["key"],
                document["options"],
                document["probes"],
                document["environment"],
                units,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HawqError(f"{path} is no complete sensitivity file ({error!r}); delete it to measure anew") from error
