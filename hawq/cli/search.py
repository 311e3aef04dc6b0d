"""`hawq search`: choose the bits of every unit from sensitivities and budgets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from hawq.bitconfig import UnitBits
    from search.costs import Cost
    from search.latency import LatencyTable

__all__ = ["costs_with", "search"]

_CHOICE = "Choice"


def search(
    budget: Annotated[
        list[str],
        typer.Option("--budget", help="bops0.5, size0.25, size=8MB, bops=72G, latency0.5; several hold at once."),
    ] = [opt.DEFAULT_SCHEME],  # noqa: B006  # typer reads it, nobody changes it
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    bits: Annotated[
        str, typer.Option("--bits", help="Widths a unit may get, each 2..8.", rich_help_panel=_CHOICE)
    ] = "4,8",
    apart: Annotated[
        bool, typer.Option("--apart", help="Let weights and input differ in width.", rich_help_panel=_CHOICE)
    ] = False,
    pin: Annotated[
        list[str],
        typer.Option(
            "--pin", help="PATTERN=BITS, for example 'stage4.*=8' or '*conv1*=W4A8'.", rich_help_panel=_CHOICE
        ),
    ] = [],  # noqa: B006
    latency_table: opt.LatencyTableOption = None,
    foreign_table: opt.ForeignTableOption = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Also draw the front of each cost (JSON and PNG).", rich_help_panel=_CHOICE)
    ] = False,
    metric: opt.MetricOption = opt.DEFAULT_METRIC,
    images: opt.SensitivityImagesOption = 2048,
    batch_size: opt.BatchSizeOption = 32,
    rel_error: opt.RelErrorOption = 0.1,
    agreement: opt.AgreementOption = 0.9,
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
    """Give every unit the bits with which the budgets hold and the loss suffers least.

    Example: hawq search --budget bops0.5 --budget size=8MB --pin 'stage3.*=8'

    Sensitivities are measured until resampling them gives the same scheme, at most on --images, and kept in the run:
    another budget then takes seconds. Without data: --data distilled makes images from the batch norms.
    Several processes share the work: torchrun --nproc-per-node 4 -m hawq search ...
    """
    from hawq.cli.console import print_json
    from hawq.cli.scheme_report import point_on, report, save_scheme, scheme_facts
    from hawq.cli.sensitivity import ImageBudget, measure_session
    from hawq.cli.session import DataRequest, open_session
    from hawq.distributed import world
    from hawq.sensitivity import Sampling
    from hawq.train.float import FloatRequest
    from search import Question, check_fits, find_scheme, load_table, options, parse_budget
    from search.confidence import UntilStable, resample

    widths, pins = opt.parse_widths(bits), dict(map(_pin, pin))
    pinned_widths = {width for chosen in pins.values() for width in chosen}
    sampling = Sampling(metric, tuple(sorted({*widths, *pinned_widths})), seed)
    table = load_table(latency_table, arch) if latency_table is not None else None
    kinds = costs_with(table)
    budgets = tuple(parse_budget(text, kinds) for text in budget)
    group = world()
    request = DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation)
    with group.leader_first():
        session = open_session(FloatRequest(arch, num_classes, pretrained, weights, seed), request, run_dir)
    if table is not None:
        check_fits(table, session.graph, foreign=foreign_table)
    question = Question(arch, session.graph, budgets, options(widths, apart=apart), pins, kinds)
    question.check()
    measured = measure_session(
        session,
        sampling,
        ImageBudget(images, batch_size, workers, group.device(device)),
        UntilStable(question, rel_error, agreement),
        group,
    )
    if not group.leads:
        return
    scheme, sure = find_scheme(question, measured.omega), resample(question, measured)
    path = save_scheme(scheme, measured, sure, session, output)
    report(scheme, measured, sure, agreement)
    given = {"-a": arch, "--data": data, "--data-path": data_path, "--size": size, "--mean": mean, "--std": std,
             "--interpolation": interpolation, "--run-dir": run_dir, "--weights": weights,
             "--num-classes": num_classes}  # fmt: skip
    facts = scheme_facts(scheme, measured, sure)
    if pareto:
        from hawq.cli.pareto import draw_fronts

        facts["pareto"] = draw_fronts(scheme, measured, session.run)
    point_on(scheme.config.scheme if output is None else str(output), path, given)
    if as_json:
        print_json({"scheme": scheme.config.scheme, "path": str(path), **facts})


def costs_with(table: "LatencyTable | None") -> "dict[str, Cost]":
    """Return what can be limited: size, BOPS and, with a table, latency."""
    from search import COSTS, latency_cost

    return dict(COSTS) if table is None else {**COSTS, "latency": latency_cost(table)}


def _pin(text: str) -> "tuple[str, UnitBits]":
    import re

    from hawq.bitconfig import UnitBits
    from hawq.errors import UsageError

    match = re.fullmatch(r"(.+)=(?:([2-8])|W([2-8])A([2-8]))", text.strip())
    if match is None:
        raise UsageError(
            f"--pin {text!r}: write PATTERN=BITS with bits of 2..8, for example 'stage4.*=8' or 'fc1=W4A8'"
        )
    both = match[2]
    return match[1], UnitBits(int(both or match[3]), int(both or match[4]))
