"""Log the metrics of every epoch to a file that is whole at any moment."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawq.files import write_atomically
from hawq.train.loggers.registry import register_logger
from hawq.train.state import StepReport

__all__ = ["CsvLog", "JsonlLog"]

_Row = dict[str, float]
_Found = list[dict[str, Any]]


@register_logger("csv")
class CsvLog:
    """Write `metrics.csv`: a header and a line for every epoch.

    An epoch that is trained again, after a kill or in a new training, replaces its line and all that follow it.

    Args:
        folder: of the file.
        settings: stand in the checkpoint already.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "metrics.csv"

    def step(self, report: StepReport) -> None:
        """Pass over it."""

    def epoch(self, row: _Row) -> None:
        """Write the epoch's line."""
        rows = [*_before(self._rows(), row), {name: str(value) for name, value in row.items()}]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n", restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, lambda temporary: temporary.write_text(text.getvalue()))

    def close(self) -> None:
        """Leave the file as it is."""

    def _rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.path.read_text().splitlines())) if self.path.is_file() else []


@register_logger("jsonl")
class JsonlLog:
    """Write `metrics.jsonl`: one JSON object for every epoch, replaced as in CsvLog.

    Args:
        folder: of the file.
        settings: stand in the checkpoint already.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "metrics.jsonl"

    def step(self, report: StepReport) -> None:
        """Pass over it."""

    def epoch(self, row: _Row) -> None:
        """Write the epoch's object."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.is_file() else []
        text = "".join(json.dumps(item) + "\n" for item in [*_before(found, row), row])
        write_atomically(self.path, lambda temporary: temporary.write_text(text))

    def close(self) -> None:
        """Leave the file as it is."""


def _before(rows: _Found, row: _Row) -> _Found:
    return [old for old in rows if float(old["epoch"]) < row["epoch"]]
