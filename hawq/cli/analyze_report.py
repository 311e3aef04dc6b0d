"""Tell people, spreadsheets and programs what `hawq analyze` found."""

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawq.analysis import Analysis, Noise, Remedies, UnitAnalysis, hint_of
from hawq.cli.console import console, print_table

if TYPE_CHECKING:
    from hawq.analysis.measure import Effect

__all__ = ["facts_of", "report", "write_table"]


def report(title: str, found: Analysis, remedies: Mapping[str, Remedies]) -> None:
    """Print what each unit loses and what would help, then the sweep, the worst units first."""
    rows = [
        [
            name,
            str(unit.bits),
            _effect(unit.alone),
            f"{unit.output.sqnr:.1f}",
            _noise(unit.weight),
            _noise(unit.activation),
            hint_of(unit, remedies[name]).value,
        ]
        for name, unit in _worst(found)
    ]
    print_table(
        f"{title}: each unit quantized alone, {found.images} images, the worst first",
        ["unit", "bits", "KL (top-1 lost)", "output", "weights", "input", "would help"],
        rows,
        caption="output, weights, input: SQNR in dB (share of the error that is clipping)\n"
        "range: another range rule (mse, laplace, percentile); weight bits: or learned rounding (adaround, brecq)",
    )
    widths = list(next(iter(found.units.values())).sweep)
    print_table(
        "Precision sweep: KL (top-1 lost) of each unit alone at other widths",
        ["unit", *(f"{width} bits" for width in widths)],
        [[name, *(_effect(unit.sweep[width]) for width in widths)] for name, unit in _worst(found)],
    )
    console.print(
        f"top-1: float {found.top1:.2f} %, all units quantized, in integers, {found.top1 - found.whole.drop:.2f} %; "
        f"KL of all together {found.whole.kl:.4f}, sum of KL alone "
        f"{sum(unit.alone.kl for unit in found.units.values()):.4f}",
        soft_wrap=True,
    )


def write_table(path: Path, found: Analysis, remedies: Mapping[str, Remedies]) -> None:
    """Write a row for each unit, the worst first: all that `facts_of` holds of it, as CSV."""
    rows = [{"unit": name, **_flat(facts)} for name, facts in facts_of(found, remedies)["units"].items()]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def facts_of(found: Analysis, remedies: Mapping[str, Remedies]) -> dict[str, Any]:
    """Return all of it as JSON types; an infinite SQNR is None."""
    units = {
        name: {
            "bits": unit.bits._asdict(),
            **asdict(unit.alone),
            "weight": _facts(unit.weight),
            "input": _facts(unit.activation),
            "output": _facts(unit.output),
            "unevenness": unit.unevenness,
            **asdict(remedies[name]),
            "hint": hint_of(unit, remedies[name]).value,
            "sweep": {str(width): asdict(effect) for width, effect in unit.sweep.items()},
        }
        for name, unit in _worst(found)
    }
    return {"images": found.images, "top1": found.top1, "whole": asdict(found.whole), "units": units}


def _worst(found: Analysis) -> list[tuple[str, UnitAnalysis]]:
    return [(name, found.units[name]) for name in found.worst_first]


def _noise(noise: Noise) -> str:
    return f"{noise.sqnr:.1f} ({100 * noise.clipped:.0f}%)"


def _effect(effect: "Effect") -> str:
    return f"{effect.kl:.4f} ({effect.drop:+.2f})"


def _facts(noise: Noise) -> dict[str, float | None]:
    return {"sqnr": noise.sqnr if math.isfinite(noise.sqnr) else None, **asdict(noise)}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested facts as one level: `weight` of `sqnr` becomes `weight_sqnr`."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= _flat(value, f"{prefix}{key}_") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
