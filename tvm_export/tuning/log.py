"""Keep what tuning has measured, a line of JSON for each measurement, so that it goes on where it was stopped."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hawq.errors import HawqError
from hawq.files import write_atomically
from tvm_export.tuning.comparison import Comparison

__all__ = ["Entry", "Stage", "TuningLog", "plan_key"]

_HEADER = {"format": "hawq-tuning", "version": 1}


class Stage(StrEnum):
    """What a measurement is for.

    TRIAL: find plans worth more.
    FINAL: measure the best of them again: the fastest of many trials owes part of its lead to luck.
    NETWORK: measure the whole network with all plans that were chosen.
    """

    TRIAL = "trial"
    FINAL = "final"
    NETWORK = "network"


@dataclass(frozen=True)
class Entry:
    """One measurement.

    Attributes:
        stage: what it is for.
        layer: key of the layer, or of the network.
        plan: its choices, JSON values.
        comparison: of the default with it.
        seconds: that it took.
        name: of an op of the layer, for people.
    """

    stage: Stage
    layer: str
    plan: dict[str, Any]
    comparison: Comparison
    seconds: float
    name: str = ""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Entry":
        """Return what `asdict` has made JSON of."""
        return cls(**{**row, "stage": Stage(row["stage"]), "comparison": Comparison(**row["comparison"])})


class TuningLog:
    """Read a log and add to it. A line that a killed run left torn is dropped; all others stay.

    Args:
        path: of the file, made with the first entry.

    Raises:
        HawqError: the file is no such log, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._found: dict[tuple[Stage, str], dict[str, Comparison]] = {}
        self._seconds: dict[str, float] = {}
        lines = self.path.read_text().splitlines(keepends=True) if self.path.is_file() else []
        self._whole = [line for line in lines if line.endswith("\n")]
        self._torn = len(self._whole) < len(lines)
        for number, line in enumerate(self._whole, start=1):
            try:
                row = json.loads(line)
                if number == 1 and row != _HEADER:
                    raise HawqError(f"{path} is no {_HEADER['format']} log of version 1: name another file")
                if number > 1:
                    self._keep(Entry.from_json(row))
            except (ValueError, TypeError, KeyError) as error:
                raise HawqError(f"{path}, line {number} cannot be read ({error}): delete the file") from error

    def found(self, stage: Stage, layer: str) -> dict[str, Comparison]:
        """Return the comparisons of a layer by `plan_key`."""
        return self._found.get((stage, layer), {})

    def seconds(self, keys: Iterable[str]) -> float:
        """Return how long the trials of some layers took."""
        return sum(self._seconds.get(key, 0.0) for key in keys)

    def add(self, entries: Iterable[Entry]) -> None:
        """Append what one measurement gave; all of it is in the file on return."""
        entries = list(entries)
        if self._torn or not self._whole:
            self._whole = self._whole or [json.dumps(_HEADER) + "\n"]
            write_atomically(self.path, lambda temporary: temporary.write_text("".join(self._whole)))
            self._torn = False
        with self.path.open("a") as file:
            file.write("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
        for entry in entries:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._found.setdefault((entry.stage, entry.layer), {})[plan_key(entry.plan)] = entry.comparison
        if entry.stage is Stage.TRIAL:
            self._seconds[entry.layer] = self._seconds.get(entry.layer, 0.0) + entry.seconds


def plan_key(plan: dict[str, Any]) -> str:
    """Return the choices of a plan as one string."""
    return json.dumps(plan, sort_keys=True)
