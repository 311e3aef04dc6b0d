"""Read the 18 integer programs that HAWQ-V3 published for ResNet-18 and ResNet-50 (arXiv 2011.10680, section 3.4).

Their inputs (Hessian traces, quantization errors, sizes and latencies of every layer) are no part of this package; they
come from a JSON file. Every convolution but the first is a variable, 4 or 8 bits for weights and input alike; the first
convolution and the classifier are in neither objective nor limits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.published import published_config
from search.solve import Constraint, Problem

__all__ = ["PublishedProgram", "published_programs"]

_FOUR, _EIGHT = UnitBits(4, 4), UnitBits(8, 8)
_COSTS = {
    "size": lambda layer: (layer["params"] / 2, layer["params"]),  # bytes
    "bops": lambda layer: (layer["macs"] / 64, layer["macs"] / 16),  # multiply-accumulates of 32 bits
    "latency": lambda layer: (layer["latency_int4"], layer["latency_int8"]),  # ms, Tesla T4, batch 8
}
_ALPHAS = (0.75, 0.5, 0.25)


@dataclass(frozen=True)
class PublishedProgram:
    """Hold one program and what is known of its answer.

    Attributes:
        arch: `resnet18` or `resnet50`.
        scheme: for example `bops0.5`.
        problem: the program.
        shipped: the bits that were published, of the units that are variables.
        optimum: the bits of an optimum, recomputed with another solver (CBC).
        optimum_gain: its objective, see `gain`.
    """

    arch: str
    scheme: str
    problem: Problem
    shipped: Mapping[str, UnitBits]
    optimum: Mapping[str, UnitBits]
    optimum_gain: float

    def gain(self, bits: Mapping[str, UnitBits]) -> float:
        """Return the published objective: the sum of Omega less what it is with all units at 4 bits."""
        return self.problem.objective(bits) - self.problem.objective(dict.fromkeys(bits, _FOUR))


def published_programs(path: Path) -> list[PublishedProgram]:
    """Return the programs of every network in a file of inputs, nine each.

    Args:
        path: `published_ilp_inputs.json`: layers with traces, errors, sizes and latencies; ties; optima.

    Raises:
        UsageError: there is no such file.
        HawqError: it is no such file.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist (expected the inputs of the published programs)")
    try:
        models = json.loads(path.read_text())["models"]
        return [
            _program(arch, model, cost, alpha) for arch, model in models.items() for cost in _COSTS for alpha in _ALPHAS
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HawqError(f"{path} does not hold the inputs of the published programs ({error!r})") from error


def _program(arch: str, model: Mapping[str, Any], cost: str, alpha: float) -> PublishedProgram:
    scheme = f"{cost}{alpha}"
    layers = {layer["name"]: layer for layer in model["layers"]}
    partner = {a: b for pair in model["tied_pairs"] for a, b in (pair, pair[::-1])}
    groups = dict.fromkeys(tuple(sorted({name, partner.get(name, name)})) for name in layers)
    omega = {
        name: {bits: layer["avg_trace"] * layer[f"dw2_{bits.weight}"] for bits in (_FOUR, _EIGHT)}
        for name, layer in layers.items()
    }
    costs = {name: dict(zip((_FOUR, _EIGHT), _COSTS[cost](layer), strict=True)) for name, layer in layers.items()}
    at_4, at_8 = (sum(table[bits] for table in costs.values()) for bits in (_FOUR, _EIGHT))
    problem = Problem(tuple(groups), omega, (Constraint(scheme, costs, at_4 + alpha * (at_8 - at_4)),))
    config, solution = published_config(arch, scheme), model["solutions"][scheme]
    if config is None:
        raise KeyError(scheme)
    return PublishedProgram(
        arch,
        scheme,
        problem,
        {name: config.units[name] for name in layers},
        {name: _EIGHT if name in solution["eight_bit"] else _FOUR for name in layers},
        solution["objective"],
    )
