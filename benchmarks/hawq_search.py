"""Solve HAWQ-V3's 18 published integer programs beside the published answers, and one program of 5096 choices.

Example: python benchmarks/hawq_search.py --inputs ../shared/notes/published_ilp_inputs.json

The large program has the shapes of ResNet-101, every pair of widths 2..8 (49 options a unit) and three budgets at once;
its sensitivities and latencies are random, so it is solved for several seeds: times differ by a factor of four. Without
the file of inputs it is solved alone.
"""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from hawq.bitconfig import UnitBits
from search.budgets import parse_budget
from search.costs import COSTS, Cost, UnitFacts
from search.problem import build_problem, options
from search.published import PublishedProgram, published_programs
from search.solve import Problem, solve

_T = TypeVar("_T")
_INPUTS = Path(__file__).parents[2] / "shared" / "notes" / "published_ilp_inputs.json"
_STAGES = ((3, 64, 56), (4, 128, 28), (23, 256, 14), (3, 512, 7))
"""ResNet-101: blocks, channels and height of the output of every stage."""


@dataclass(frozen=True)
class Figure:
    """One published program.

    Attributes:
        arch: network.
        scheme: its budget.
        ours: objective of our answer; Omega less what it is with all units at 4 bits.
        published: of the assignment that was published.
        optimum: as recomputed with another solver.
        optimal: whether our answer has the optimum's objective, to 1e-6.
        same_bits: whether our answer is the published assignment.
        ms: to solve it, best of the runs.
    """

    arch: str
    scheme: str
    ours: float
    published: float
    optimum: float
    optimal: bool
    same_bits: bool
    ms: float


@dataclass(frozen=True)
class LargeFigure:
    """The large program.

    Attributes:
        seed: of its sensitivities and latencies.
        units: that are searched, each on its own.
        choices: bits a unit may get.
        budgets: that hold at once.
        gap: proven distance from the optimum, relative.
        seconds: to solve it, once.
        cpu_seconds: of the process meanwhile; less than `seconds` where the machine was busy.
        solver: what solved it.
    """

    seed: int
    units: int
    choices: int
    budgets: tuple[str, ...]
    gap: float
    seconds: float
    cpu_seconds: float
    solver: str


def _best(function: Callable[[], _T], runs: int) -> tuple[_T, float]:
    """Return what a function returns, and the least seconds of several runs."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def published_figure(program: PublishedProgram, runs: int) -> Figure:
    """Solve one published program."""
    solution, seconds = _best(lambda: solve(program.problem), runs)
    ours = program.gain(solution.bits)
    return Figure(
        program.arch,
        program.scheme,
        ours,
        program.gain(program.shipped),
        program.optimum_gain,
        optimal=abs(ours - program.optimum_gain) < 1e-6,
        same_bits=solution.bits == program.shipped,
        ms=seconds * 1e3,
    )


def resnet101_facts() -> dict[str, UnitFacts]:
    """Return the 104 units of ResNet-101 behind its first convolution, the classifier included."""
    facts, before = {}, 64
    for stage, (blocks, channels, height) in enumerate(_STAGES, 1):
        for block in range(1, blocks + 1):
            shapes = {"conv1": before * channels, "conv2": 9 * channels**2, "conv3": 4 * channels**2}
            if block == 1:
                shapes["identity_conv"] = 4 * channels * before
            for name, weights in shapes.items():
                unit = f"stage{stage}.unit{block}.{name}"
                facts[unit] = UnitFacts(unit, weights, weights * height**2)
            before = 4 * channels
    return facts | {"output": UnitFacts("output", before * 1000, before * 1000)}


def large_problem(seed: int) -> Problem:
    """Return the large program: Omega and latencies are random, log-normal around what theory expects of them."""
    generator = random.Random(seed)
    facts = resnet101_facts()
    trace, slow = ({name: generator.lognormvariate(0, 1.5) for name in facts} for _ in range(2))
    noise = {
        name: {bits: generator.lognormvariate(0, 0.1) for bits in options(range(2, 9), apart=True)} for name in facts
    }

    def latency(unit: UnitFacts, bits: UnitBits) -> float:
        return slow[unit.name] * noise[unit.name][bits] * (1e-3 + unit.macs * (bits.weight + bits.activation) * 1e-10)

    kinds = {**COSTS, "latency": Cost("latency", (), "ms", {"ms": 1}, latency)}
    omega = {
        name: {bits: trace[name] * (4.0**-bits.weight + 0.3 * 4.0**-bits.activation) for bits in noise[name]}
        for name in facts
    }
    budgets = [parse_budget(text, kinds) for text in ("size0.5", "bops0.5", "latency0.5")]
    return build_problem(facts, [], set(), omega, budgets)


def large_figure(seed: int) -> LargeFigure:
    """Solve the large program."""
    problem = large_problem(seed)
    started, worked = time.perf_counter(), time.process_time()
    solution = solve(problem)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    return LargeFigure(
        seed,
        units=len(problem.groups),
        choices=len(problem.candidates(problem.groups[0])),
        budgets=tuple(constraint.name for constraint in problem.constraints),
        gap=solution.gap,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        solver=solution.solver,
    )


def benchmark(
    inputs: Annotated[Path, typer.Option(help="Inputs of the published programs.")] = _INPUTS,
    quick: Annotated[
        bool, typer.Option("--quick", help="Solve everything once, the large program for seed 0.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the large program.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")] = False,
) -> None:
    """Solve the published programs and a large one; print objectives, whether they are optimal, and times."""
    from hawq.cli.console import console, print_json, print_table

    runs = 1 if quick else 5
    figures = [published_figure(program, runs) for program in published_programs(inputs)] if inputs.is_file() else []
    if not figures:
        console.print(f"{inputs} is not here: only the large program is solved; name the file with --inputs")
    large = [large_figure(seed) for seed in range(1 if quick else seeds)]
    rows = [
        [f.arch, f.scheme, f"{f.ours:.6f}", f"{f.published:.6f}", f"{f.optimum:.6f}",
         "yes" if f.optimal else "NO", "yes" if f.same_bits else "no", f"{f.ms:.1f}"]
        for f in figures
    ]  # fmt: skip
    header = ["network", "scheme", "ours", "published", "optimum", "optimal", "published bits", "ms"]
    if rows:
        print_table("Objective, less that of all units at 4 bits", header, rows)
    rows = [
        [f.seed, f.units, f.choices, " ".join(f.budgets), f"{f.gap:.1g}", f"{f.seconds:.2f}", f"{f.cpu_seconds:.2f}"]
        for f in large
    ]
    header = ["seed", "units", "options", "budgets", "gap", "s", "CPU s"]
    print_table(f"ResNet-101's shapes, random sensitivities, {large[0].solver}", header, rows)
    if as_json:
        print_json({"programs": [asdict(figure) for figure in figures], "large": [asdict(figure) for figure in large]})


if __name__ == "__main__":
    typer.run(benchmark)
