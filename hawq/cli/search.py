"""`hawq search`: choose the bits of every unit from sensitivities and budgets."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from hawq.cli.session import Session
    from hawq.sensitivity import Probing, Sensitivity
    from search.scheme import Scheme

__all__ = ["measure_session", "save_scheme", "search"]

_SENSITIVITY = "Sensitivity"
_METHOD = "hessian"


def search(
    budget: Annotated[
        list[str],
        typer.Option("--budget", help="bops0.5, size0.25, size=8MB, bops=72G; several hold at once."),
    ] = [opt.DEFAULT_SCHEME],  # noqa: B006  # typer reads it, nobody changes it
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    bits: Annotated[str, typer.Option("--bits", help="Widths a unit may get, each 2..8.")] = "4,8",
    images: Annotated[
        int, typer.Option("--images", min=1, help="Training images.", rich_help_panel=_SENSITIVITY)
    ] = 128,
    batch_size: opt.BatchSizeOption = 32,
    max_probes: Annotated[
        int, typer.Option("--max-probes", min=1, help="Random vectors at most.", rich_help_panel=_SENSITIVITY)
    ] = 32,
    rel_error: Annotated[
        float,
        typer.Option("--rel-error", help="Stop when traces are known this well.", rich_help_panel=_SENSITIVITY),
    ] = 0.1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="bit_configs/<arch>/<scheme>.json"),
    ] = None,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    workers: opt.WorkersOption = 0,
    device: opt.DeviceOption = "cpu",
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Give every unit 4 or 8 bits so that the budgets hold and the loss suffers least.

    Example: hawq search --budget bops0.5 --budget size=8MB

    Sensitivities are measured once and kept in the run; another budget then takes seconds.
    """
    from hawq.cli.console import print_json
    from hawq.cli.session import DataRequest, open_session
    from hawq.sensitivity import Probing
    from hawq.train.float import FloatRequest
    from search import Question, find_scheme, options, parse_budget

    budgets, widths = [parse_budget(text) for text in budget], _widths(bits)
    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights, seed),
        DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
    )
    probing = Probing(rel_error, max_probes, seed)
    sensitivity = measure_session(session, probing, images, batch_size, device, workers)
    question = Question(arch, session.graph, tuple(budgets), options(widths))
    scheme = find_scheme(question, sensitivity.omega)
    path = save_scheme(scheme, sensitivity, session, output)
    _report(scheme, sensitivity)
    given = {"-a": arch, "--data": data, "--data-path": data_path, "--run-dir": run_dir, "--weights": weights}
    _point_on(scheme.config.scheme if output is None else str(output), path, given)
    if as_json:
        print_json({"scheme": scheme.config.scheme, "path": str(path), **_facts(scheme, sensitivity)})


def measure_session(
    session: "Session",
    probing: "Probing",
    images: int = 128,
    batch_size: int = 32,
    device: str = "cpu",
    workers: int = 0,
) -> "Sensitivity":
    """Return the sensitivities of a run's float network, measured now or found in the run.

    Args:
        session: the run.
        probing: how many random vectors.
        images: training images to differentiate over, drawn by the seed of the probing.
        batch_size: images at a time; bounds the memory.
        device: cpu or cuda.
        workers: threads that decode images.
    """
    from dataclasses import replace

    from hawq.cli.console import console, progress
    from hawq.sensitivity import measure

    graph = replace(session.graph, tensors={name: t.to(device) for name, t in session.graph.tensors.items()})
    drawn = session.data.batches("train", batch_size, shuffle=True, seed=probing.seed, limit=images, workers=workers)
    batches = [(image.to(device), label.to(device)) for image, label in drawn]
    with progress() as bars:
        task = bars.add_task("Hessian traces", total=probing.max_probes, status="")

        def on_probe(probes: int, error: float) -> None:
            bars.update(task, completed=probes, status=f"largest error {error:.0%}")

        sensitivity, cached = measure(_METHOD, graph, batches, probing, session.run.sensitivity, on_probe)
    how = "read from" if cached else "written to"
    console.print(
        f"Hessian traces from {sensitivity.probes} probes over {sensitivity.options['images']} images, "
        f"{how} {session.run.sensitivity}",
        soft_wrap=True,
    )
    return sensitivity


def save_scheme(scheme: "Scheme", sensitivity: "Sensitivity", session: "Session", output: Path | None = None) -> Path:
    """Write the bit config, with how it came about, and the run's unit costs; return the config's path."""
    from hawq.bitconfig import BitConfig
    from hawq.sensitivity.perturbation import WIDTHS
    from search.costs import save_costs

    path = output or BitConfig.default_path(scheme.config.arch, scheme.config.scheme)
    scheme.config.save(path, search=_facts(scheme, sensitivity))
    save_costs(session.run.costs, scheme.facts, WIDTHS)
    return path


def _widths(text: str) -> tuple[int, ...]:
    from hawq.errors import UsageError

    try:
        widths = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        widths = ()
    if not widths or not 2 <= widths[0] <= widths[-1] <= 8:
        raise UsageError(f"--bits {text!r}: give widths of 2..8 separated by commas, for example 2,4,8")
    return widths


def _facts(scheme: "Scheme", sensitivity: "Sensitivity") -> dict[str, Any]:
    """Return what the bit config is kept with: budgets, costs, solver and sensitivities."""
    solution = scheme.solution
    return {
        "budgets": {name: {"limit": limit, "cost": solution.costs[name]} for name, limit in solution.limits.items()},
        "totals": scheme.totals,
        "objective": solution.objective,
        "gap": solution.gap,
        "solver": solution.solver,
        "sensitivity": {
            "method": sensitivity.method,
            "options": dict(sensitivity.options),
            "probes": sensitivity.probes,
            "key": sensitivity.key,
        },
        "environment": dict(sensitivity.environment),
    }


def _report(scheme: "Scheme", sensitivity: "Sensitivity") -> None:
    from hawq.cli.console import console, print_table
    from search.budgets import parse_budget
    from search.costs import COSTS

    rows = []
    for name, fact in scheme.facts.items():
        bits = f"{scheme.config.units[name].weight}" + ("" if name in scheme.solution.bits else " *")
        rows.append([name, f"{fact.weights:,}", f"{fact.macs / 1e6:.3f}", _trace(sensitivity, name), bits])
    print_table(
        f"{scheme.config.arch}, {scheme.config.scheme}",
        ["unit", "weights", "MACs (M)", "trace", "bits"],
        rows,
        caption="* not searched: first and last units stay at 8 bits",
    )
    totals = [
        [name, *(f"{COSTS[cost].scaled(value):.3f}" for cost, value in costs.items())]
        for name, costs in scheme.totals.items()
    ]
    print_table(
        "Totals, pinned units included", ["scheme", *(f"{c.name} ({c.symbol})" for c in COSTS.values())], totals
    )
    solution = scheme.solution
    for budget, limit in solution.limits.items():
        cost = parse_budget(budget).cost
        used, allowed = cost.scaled(solution.costs[budget]), cost.scaled(limit)
        console.print(f"budget {budget}: {used:.3f} of {allowed:.3f} {cost.symbol}")
    console.print(f"sum of Omega {solution.objective:.4g}, gap {solution.gap:.2g} ({solution.solver})")


def _trace(sensitivity: "Sensitivity", name: str) -> str:
    unit = sensitivity.units[name]
    if unit.trace is None:
        return "-"
    return f"{unit.trace:.3g}" + ("" if unit.trace_error is None else f" ± {unit.trace_error:.2g}")


def _point_on(scheme: str, path: Path, given: Mapping[str, object]) -> None:
    """Name the file that was written and the command that uses it."""
    from hawq.cli.console import console

    usual = {"-a": opt.DEFAULT_ARCH, "--data": opt.DEFAULT_DATA}
    words = [f"{option} {value}" for option, value in given.items() if value not in (None, usual.get(option))]
    command = " ".join(["python quant_train.py", f"--quant-scheme {scheme}", *words])
    console.print(f"bit config: {path}; next: {command}", soft_wrap=True)
