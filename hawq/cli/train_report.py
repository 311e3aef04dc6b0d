"""Write and print how good a network is, class by class."""

import csv
import io
from pathlib import Path
from typing import Any

from hawq.cli.console import print_table
from hawq.evaluation import Accuracy
from hawq.files import write_atomically, write_json
from hawq.train.report import Report

__all__ = ["save_report"]

_FORMAT, _VERSION = "hawq-report", 1
_MOST_CLASSES = 20
_PAIRS = 10


def save_report(accuracy: Accuracy, folder: Path) -> dict[str, Any]:
    """Write `report.json` and `confusion.csv`, print them, and return the figures."""
    report = Report(accuracy)
    figures = report.to_json()
    write_json(folder / "report.json", _FORMAT, _VERSION, figures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["shown", *report.classes])
    writer.writerows([shown, *row] for shown, row in zip(report.classes, report.confusion.tolist(), strict=True))
    write_atomically(folder / "confusion.csv", lambda temporary: temporary.write_text(text.getvalue()))
    _print(report, figures)
    return figures


def _print(report: Report, figures: dict[str, Any]) -> None:
    means = ("precision", "recall", "f1")
    row = [f"{figures['top1']:.2f}%", f"{figures['top5']:.2f}%", *(f"{figures[name]:.4f}" for name in means)]
    print_table(f"{figures['images']} test images, in integers", ["top-1", "top-5", *means], [row])
    if len(report.classes) <= _MOST_CLASSES:
        rows = [[shown, *counts] for shown, counts in zip(report.classes, report.confusion.tolist(), strict=True)]
        print_table("images by class shown and class predicted", ["shown", *map(str, report.classes)], rows)
    else:
        print_table("most confused classes", ["shown", "predicted", "images"], report.most_confused(_PAIRS))
