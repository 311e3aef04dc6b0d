"""Read and write latency tables; read the published one, too."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.files import read_json, write_json
from hawq.hardware import Device
from search.costs import UnitFacts
from search.latency import LatencyTable, Timing

__all__ = ["load_table", "save_table"]

_FORMAT, _VERSION = "hawq-latency", 1
_T4, _T4_BATCH = Device("Tesla T4", ("sm_75",), 40), 8
"""What HAWQ measured its published latencies on (2011.10680, section 4)."""


def save_table(table: LatencyTable, path: Path, **extra: object) -> None:
    """Write a table as JSON; `extra` (options, versions) is kept beside it."""
    units = {
        name: {"weights": fact.weights, "macs": fact.macs, "latency": _rows(table.units[name])}
        for name, fact in table.facts.items()
    }
    body = {
        "arch": table.arch,
        "target": table.target,
        "batch": table.batch,
        "threads": table.threads,
        "device": asdict(table.device),
        "fingerprint": table.fingerprint,
        "units": units,
        "rest": _rows(table.rest),
        "whole": _rows(table.whole),
    }
    write_json(path, _FORMAT, _VERSION, {**body, **extra})


def _rows(timings: Mapping[UnitBits, Timing]) -> list[dict[str, float]]:
    return [{"weight": b.weight, "activation": b.activation, **asdict(t)} for b, t in sorted(timings.items())]


def load_table(path: Path, arch: str) -> LatencyTable:
    """Read a table that `hawq profile` wrote, or HAWQ's published latencies, which are told by their content.

    Args:
        path: the file.
        arch: name of the network: which of the published networks is meant, otherwise not used.

    Raises:
        UsageError: there is no such file, or it is the published one and lacks this network.
        HawqError: the file is torn or of another format.
    """
    path = Path(path)
    models = _published(path)
    if models is not None:
        return _from_published(models, arch, path)
    document = read_json(path, _FORMAT, _VERSION)
    try:
        device = document["device"]
        units = document["units"]
        return LatencyTable(
            document["arch"],
            document["target"],
            document["batch"],
            document["threads"],
            Device(device["name"], tuple(device["features"]), device["cores"]),
            {name: UnitFacts(name, unit["weights"], unit["macs"]) for name, unit in units.items()},
            document["fingerprint"],
            {name: _timings(unit["latency"]) for name, unit in units.items()},
            _timings(document["rest"]),
            _timings(document["whole"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HawqError(
            f"{path} is no complete latency table ({error!r}); write it again with `hawq profile`"
        ) from error


def _timings(rows: list[dict[str, Any]]) -> dict[UnitBits, Timing]:
    return {
        UnitBits(row["weight"], row["activation"]): Timing(row["median_ms"], row["p10_ms"], row["p90_ms"])
        for row in rows
    }


def _published(path: Path) -> dict[str, Any] | None:
    """Return the networks of HAWQ's published table, None where the file is anything else."""
    try:
        models = json.loads(path.read_text())["models"]
        first = next(iter(models.values()))["layers"][0]
        return models if "latency_int4" in first and "latency_int8" in first else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration):
        return None


def _from_published(models: dict[str, Any], arch: str, path: Path) -> LatencyTable:
    if arch not in models:
        raise UsageError(f"{path} has the published latencies of {', '.join(models)}, and none of {arch!r}")
    layers = models[arch]["layers"]
    facts = {layer["name"]: UnitFacts(layer["name"], layer["params"], layer["macs"]) for layer in layers}
    units = {
        layer["name"]: {UnitBits(b, b): Timing(*[layer[f"latency_int{b}"]] * 3) for b in (4, 8)} for layer in layers
    }
    return LatencyTable(arch, "cuda", _T4_BATCH, None, _T4, facts, None, units)
