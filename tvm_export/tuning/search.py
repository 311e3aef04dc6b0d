"""Choose a plan for every layer: climb from the default one in trials, then measure the best trials again.

What happens next, and what is chosen at the end, follows from the log alone. So a search goes on where it was stopped,
a finished one measures nothing, and the same log gives the same library.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tvm_export.plans import Plan
from tvm_export.tuning.comparison import Comparison
from tvm_export.tuning.layers import Layer, digest
from tvm_export.tuning.log import Entry, Stage, TuningLog, plan_key
from tvm_export.tuning.rig import FINAL, TRIAL, Rig

__all__ = ["Tuned", "Tuning", "tune", "tuned"]

_FINALISTS = 3
"""Trials of a layer that are measured again at most, the best first."""


@dataclass(frozen=True)
class Tuned:
    """A layer and what was chosen for it.

    Attributes:
        layer: that was tuned.
        plan: the default one, or another that was faster twice.
        measured: the default compared with the plan when it was measured again; None for the default.
        default_ms: median time of the default, None if it was never measured.
    """

    layer: Layer
    plan: Plan
    measured: Comparison | None
    default_ms: float | None


@dataclass(frozen=True)
class Tuning:
    """What a log says about a network.

    Attributes:
        layers: in the order of the program.
        threads: that it was measured with.
        network: the default network compared with the tuned one; None if no layer has another plan than by default, or
            it is not measured yet.
    """

    layers: tuple[Tuned, ...]
    threads: int
    network: Comparison | None

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans to export with, by op; none if the network as a whole gained nothing or was not measured."""
        if self.network is None or self.network.ratio >= 1:
            return {}
        return _plans({tuned.layer: tuned.plan for tuned in self.layers if tuned.measured is not None})

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest says: the threads, and the plan of every op that has another one than by default."""
        return {"threads": self.threads, "plans": {op: asdict(plan) for op, plan in self.plans.items()}}


def tune(
    layers: Sequence[Layer],
    rig: Callable[[], Rig],
    log: TuningLog,
    *,
    threads: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[float, str], None] = lambda *_: None,
) -> Tuning:
    """Measure until no layer has a promising plan left or the time is up, and return what was chosen.

    All layers are measured together, each with its next plan, so that a layer gets the share of the measuring time that
    it has of the network's.

    Args:
        layers: to tune.
        rig: makes what measures; called only if something is to be measured.
        log: of measurements made before; new ones are added.
        threads: that run the kernels.
        seconds: for trials, those in the log included. Measuring the best ones again comes on top.
        clock: tells the time, in seconds.
        advance: told the seconds spent on trials and what comes next.

    Raises:
        HawqError: a plan gives other integers than the default.
    """
    keys = [layer.key for layer in layers]
    bench = _Bench(rig, log, clock)
    while (spent := log.seconds(keys)) < seconds and (plans := _each(layers, lambda layer: _next_trial(layer, log))):
        advance(spent, f"{len(plans)} of {len(layers)} layers have plans to try")
        bench.compare(Stage.TRIAL, plans)
    while plans := _each(layers, lambda layer: _next_final(layer, log)):
        advance(seconds, f"measuring {len(plans)} layers again")
        bench.compare(Stage.FINAL, plans)
    found = tuned(layers, log, threads)
    if found.network is None and (plans := {t.layer: t.plan for t in found.layers if t.measured is not None}):
        advance(seconds, "measuring the network")
        bench.compare_network(_network_key(layers), plans)
        found = tuned(layers, log, threads)
    return found


def tuned(layers: Sequence[Layer], log: TuningLog, threads: int) -> Tuning:
    """Return what a log says about layers, without measuring."""
    chosen = tuple(_tuned(layer, log) for layer in layers)
    plans = {found.layer: found.plan for found in chosen if found.measured is not None}
    network = log.found(Stage.NETWORK, _network_key(layers)).get(plan_key(_facts(plans)))
    return Tuning(chosen, threads, network)


class _Bench:
    """Measure, and write down what came out."""

    def __init__(self, rig: Callable[[], Rig], log: TuningLog, clock: Callable[[], float]) -> None:
        self._make, self._log, self._clock = rig, log, clock
        self._rig: Rig | None = None

    def compare(self, stage: Stage, plans: Mapping[Layer, Plan]) -> None:
        start = self._clock()
        times = self._ready().kernels(_plans(plans), TRIAL if stage is Stage.TRIAL else FINAL)
        compared = {layer: _summed([times[op] for op in layer.ops]) for layer in plans}
        seconds = (self._clock() - start) / len(plans)
        self._log.add(
            Entry(stage, layer.key, asdict(plans[layer]), comparison, seconds, layer.ops[0])
            for layer, comparison in compared.items()
        )

    def compare_network(self, key: str, plans: Mapping[Layer, Plan]) -> None:
        start = self._clock()
        comparison = Comparison.of(*self._ready().network(_plans(plans), FINAL))
        self._log.add([Entry(Stage.NETWORK, key, _facts(plans), comparison, self._clock() - start)])

    def _ready(self) -> Rig:
        self._rig = self._rig or self._make()
        return self._rig


def _next_trial(layer: Layer, log: TuningLog) -> Plan | None:
    """Return the first plan not tried yet that differs in one choice from the default, or then from the best so far."""
    tried = log.found(Stage.TRIAL, layer.key)
    bases = layer.plans[:1], _promising(layer, log)[:1]
    plans = (plan for base in itertools.chain(*bases) for plan in layer.neighbours(base))
    return next((plan for plan in plans if plan_key(asdict(plan)) not in tried), None)


def _next_final(layer: Layer, log: TuningLog) -> Plan | None:
    """Return the best trial that was not measured again yet, unless a better one has passed."""
    measured = log.found(Stage.FINAL, layer.key)
    for plan in _promising(layer, log)[:_FINALISTS]:
        again = measured.get(plan_key(asdict(plan)))
        if again is None:
            return plan
        if again.faster:
            return None
    return None


def _promising(layer: Layer, log: TuningLog) -> list[Plan]:
    """Return the plans that were faster in their trial, the fastest first."""
    tried = log.found(Stage.TRIAL, layer.key)
    ratios = {plan: tried[key] for plan in layer.plans if (key := plan_key(asdict(plan))) in tried}
    return sorted((plan for plan in ratios if ratios[plan].faster), key=lambda plan: ratios[plan].ratio)


def _tuned(layer: Layer, log: TuningLog) -> Tuned:
    final = log.found(Stage.FINAL, layer.key)
    passed = [(plan, c) for plan in layer.plans if (c := final.get(plan_key(asdict(plan)))) and c.faster]
    if passed:
        plan, comparison = min(passed, key=lambda pair: pair[1].ratio)
        return Tuned(layer, plan, comparison, comparison.default_ms)
    trials = sorted(comparison.default_ms for comparison in log.found(Stage.TRIAL, layer.key).values())
    return Tuned(layer, layer.plans[0], None, trials[len(trials) // 2] if trials else None)


def _each(layers: Sequence[Layer], choose: Callable[[Layer], Plan | None]) -> dict[Layer, Plan]:
    return {layer: plan for layer in layers if (plan := choose(layer)) is not None}


def _summed(times: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Comparison:
    """Compare the times that equal layers take together."""
    defaults, plans = ([sum(turn) for turn in zip(*side, strict=True)] for side in zip(*times, strict=True))
    return Comparison.of(defaults, plans)


def _plans(plans: Mapping[Layer, Plan]) -> dict[str, Plan]:
    return {op: plan for layer, plan in plans.items() for op in layer.ops}


def _facts(plans: Mapping[Layer, Plan]) -> dict[str, object]:
    return {op: asdict(plan) for op, plan in _plans(plans).items()}


def _network_key(layers: Sequence[Layer]) -> str:
    return digest({"layers": [[layer.key, *layer.ops] for layer in layers]})
