"""Hold sensitivities, sample by sample, and keep them in `sensitivity.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from hawq.files import read_json, write_json

__all__ = ["Operand", "Sensitivity", "Term", "UnitSensitivity"]

_FORMAT, _VERSION = "hawq-sensitivity", 2


class Operand(Enum):
    """Name what a unit quantizes: its weights, or the activation it reads."""

    WEIGHT = "weight"
    ACTIVATION = "activation"

    def width(self, bits: UnitBits) -> int:
        """Return the bits this operand has."""
        return bits.weight if self is Operand.WEIGHT else bits.activation


@dataclass(frozen=True)
class Term:
    """Add mean(samples) * factor[width] to a unit's Omega.

    Attributes:
        operand: whose width counts.
        factor: width -> what the samples are multiplied with; a width that is missing adds nothing.
        samples: one value for every batch of images, in order.
    """

    operand: Operand
    factor: Mapping[int, float]
    samples: tuple[float, ...] = ()


@dataclass(frozen=True)
class UnitSensitivity:
    """Tell what few bits cost one unit.

    Attributes:
        weights: number of weights n.
        terms: that make up Omega.
    """

    weights: int
    terms: tuple[Term, ...]

    def samples(self, bits: UnitBits) -> Tensor:
        """Return Omega(bits) of every batch, float64, (batches,).

        Raises:
            HawqError: nothing was measured at these bits.
        """
        for operand in {term.operand for term in self.terms}:
            widths = {width for term in self.terms if term.operand is operand for width in term.factor}
            if operand.width(bits) not in widths:
                raise HawqError(
                    f"{operand.value}s were not measured at {operand.width(bits)} bits, only at "
                    f"{', '.join(map(str, sorted(widths)))}; search with --bits that name it"
                )
        total = torch.zeros(len(self.terms[0].samples), dtype=torch.float64)
        for term in self.terms:
            total += torch.tensor(term.samples, dtype=torch.float64) * term.factor.get(term.operand.width(bits), 0.0)
        return total


@dataclass(frozen=True)
class Sensitivity:
    """Hold the sensitivities of a network.

    Attributes:
        metric: registered name.
        key: hash of network, metric and options.
        batches: hash and number of images of every batch, in the order of the samples.
        options: what the measurement was told.
        environment: device and package versions.
        units: unit -> sensitivity, in the order of the network.
    """

    metric: str
    key: str
    batches: tuple[tuple[str, int], ...]
    options: Mapping[str, Any]
    environment: Mapping[str, str]
    units: Mapping[str, UnitSensitivity]

    @property
    def images(self) -> int:
        """Number of images behind the samples."""
        return sum(count for _, count in self.batches)

    @cached_property
    def shares(self) -> Tensor:
        """Share of the images in every batch, float64, (batches,)."""
        counts = torch.tensor([count for _, count in self.batches], dtype=torch.float64)
        return counts / counts.sum()

    def omega(self, unit: str, bits: UnitBits, shares: Tensor | None = None) -> float:
        """Return Omega of a unit: the mean over the images, or 0 if that is negative.

        Args:
            unit: its name.
            bits: of weights and input.
            shares: weights of the batches instead of their images, float64, (batches,), summing to 1; resampling.
        """
        samples = self.units[unit].samples(bits)
        return max(float((self.shares if shares is None else shares) @ samples), 0.0)

    def error(self, unit: str, bits: UnitBits) -> float | None:
        """Return the standard error of Omega over the batches; None for a single batch."""
        return _standard_error(self.units[unit].samples(bits), self.shares)

    def share_error(self, bits: UnitBits) -> float:
        """Return the largest relative standard error of a unit's share of the sum of all Omega.

        A factor that all units have in common, such as a hard batch, changes no scheme and does not count. An error is
        relative to the share, or to the mean share where that is larger. Infinite for a single batch.
        """
        table = torch.stack([unit.samples(bits) for unit in self.units.values()])  # (units, batches)
        total = table.sum(0)
        whole = float(self.shares @ total)
        if whole <= 0:
            return 0.0 if not bool(table.any()) else float("inf")
        worst = 0.0
        for samples in table:
            share = float(self.shares @ samples) / whole
            error = _standard_error((samples - share * total) / whole, self.shares)
            if error is None:
                return float("inf")
            worst = max(worst, error / max(abs(share), 1 / len(table)))
        return worst

    def save(self, path: Path) -> None:
        """Write the sensitivities as JSON."""
        units = {
            name: {
                "weights": unit.weights,
                "terms": [{**asdict(term), "operand": term.operand.value} for term in unit.terms],
            }
            for name, unit in self.units.items()
        }
        head = {"metric": self.metric, "key": self.key, "batches": self.batches, "options": dict(self.options)}
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
                name: UnitSensitivity(unit["weights"], tuple(map(_term, unit["terms"])))
                for name, unit in document["units"].items()
            }
            batches = tuple((str(digest), int(count)) for digest, count in document["batches"])
            if any(len(term.samples) != len(batches) for unit in units.values() for term in unit.terms):
                raise ValueError("samples and batches differ in number")
            return cls(
                document["metric"], document["key"], batches, document["options"], document["environment"], units
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HawqError(f"{path} is no complete sensitivity file ({error!r}); delete it to measure anew") from error


def _term(document: Mapping[str, Any]) -> Term:
    factor = {int(width): float(value) for width, value in document["factor"].items()}
    return Term(Operand(document["operand"]), factor, tuple(map(float, document["samples"])))


def _standard_error(samples: Tensor, shares: Tensor) -> float | None:
    """Return the standard error of a weighted mean of independent samples; equal shares give std / sqrt(n)."""
    count = len(samples)
    if count < 2:
        return None
    spread = shares * (samples - shares @ samples)
    return float(torch.sqrt(spread.square().sum() * count / (count - 1)))
