"""Find the layers that have plans to choose from; equal ones are one layer."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tvm_export.backend import Backend
from tvm_export.expressions import Site
from tvm_export.plans import Plan
from tvm_export.storage import Storage

__all__ = ["Layer", "digest", "layers"]


@dataclass(frozen=True)
class Layer:
    """Kernels that do the same work.

    Attributes:
        key: hash of that work, of the target and of the number of threads; names, weights and scales are not in it.
        ops: that the kernels begin with.
        plans: ways to do it, the default first.
    """

    key: str
    ops: tuple[str, ...]
    plans: tuple[Plan, ...]

    def neighbours(self, plan: Plan) -> list[Plan]:
        """Return the plans, without the default, that differ from one in a single choice."""
        return [other for other in self.plans[1:] if sum(_differs(plan, other, f.name) for f in fields(plan)) == 1]


def _differs(plan: Plan, other: Plan, field: str) -> bool:
    return getattr(plan, field) != getattr(other, field)


def layers(sites: Iterable[Site], target: Backend, threads: int) -> list[Layer]:
    """Return the layers of a network that can be tuned, in the order of the program."""
    found: dict[str, Layer] = {}
    for site in sites:
        plans = tuple(target.plans(site))
        if len(plans) < 2:
            continue
        key = digest(
            {"work": _work(site), "plans": [asdict(p) for p in plans], "threads": threads, **target.describe()}
        )
        known = found.get(key, Layer(key, (), plans))
        found[key] = replace(known, ops=(*known.ops, site.op.name))
    return list(found.values())


def digest(facts: Mapping[str, Any]) -> str:
    """Return a short hash of JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _work(site: Site) -> dict[str, Any]:
    geometry = ("stride", "padding", "dilation", "groups")
    return {
        "op": type(site.op).__name__,
        **{name: getattr(site.op, name) for name in geometry if hasattr(site.op, name)},
        "inputs": [_memory(storage) for storage in site.inputs],
        "out": _memory(site.out),
        "kept": site.kept,
        "constants": {name: array.shape for name, array in site.constants.items()},
        "batch": str(site.batch),
        "followers": [_work(follower) for follower in site.followers],
    }


def _memory(storage: Storage) -> Sequence[Any]:
    kind = storage.type
    return [kind.shape, kind.bits, kind.signed, kind.zero_point != 0, storage.channels, storage.packed]
