"""`hawq explain`: why a scheme is what it is, unit by unit, and what one step up or down would change."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hawq.bitconfig import BitConfig
    from hawq.graph.ir import FloatGraph
    from search.budgets import Budget
    from search.costs import Cost
    from search.scheme import Question

__all__ = ["explain"]


def explain(
    scheme: Annotated[
        str, typer.Argument(help="A searched scheme, a published one, uniform8, uniform4, or a .json file.")
    ] = opt.DEFAULT_SCHEME,
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    bits: Annotated[
        str, typer.Option("--bits", help="Widths a step may lead to, each 2..8; the scheme's own are added.")
    ] = "4,8",
    latency_table: opt.LatencyTableOption = None,
    foreign_table: opt.ForeignTableOption = False,
    metric: opt.MetricOption = opt.DEFAULT_METRIC,
    images: opt.SensitivityImagesOption = 2048,
    batch_size: opt.BatchSizeOption = 32,
    rel_error: opt.RelErrorOption = 0.1,
    agreement: opt.AgreementOption = 0.9,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    workers: opt.WorkersOption = 0,
    device: opt.DeviceOption = "cpu",
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Say what every unit suffers and costs, what each budget is worth, and what one step up or down would change.

    Example: hawq explain bops0.5

    Sensitivities are those of the search: found in the run, or measured with the same options. The budgets are read
    from the scheme's name; uniform schemes have none, hence no prices.
    """
    from hawq.cli.console import print_json
    from hawq.cli.explain_report import facts_of, report
    from hawq.cli.search import costs_with
    from hawq.cli.sensitivity import ImageBudget, measure_session
    from hawq.cli.session import DataRequest, open_session
    from hawq.distributed import World
    from hawq.schemes import check_exists, resolve_scheme
    from hawq.sensitivity import Sampling
    from hawq.train.float import FloatRequest
    from search import check_fits, load_table
    from search.confidence import UntilStable
    from search.explain import explain as explained

    widths = opt.parse_widths(bits)
    request = DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation)
    check_exists(scheme, arch)
    session = open_session(FloatRequest(arch, num_classes, pretrained, weights, seed), request, run_dir)
    table = load_table(latency_table, arch) if latency_table is not None else None
    if table is not None:
        check_fits(table, session.graph, foreign=foreign_table)
    kinds = costs_with(table)
    config = resolve_scheme(scheme, arch, session.graph)
    question = _question(config, session.graph, widths, kinds)
    sampling = Sampling(metric, tuple(sorted({width for pair in question.allowed for width in pair})), seed)
    enough = UntilStable(_searched(question), rel_error, agreement)
    measured = measure_session(session, sampling, ImageBudget(images, batch_size, workers, device), enough, World())
    found = explained(question, config, measured)
    report(config, question, measured, found)
    if as_json:
        print_json(facts_of(config, question, measured, found))


def _question(
    config: "BitConfig", graph: "FloatGraph", widths: tuple[int, ...], kinds: "Mapping[str, Cost]"
) -> "Question":
    """Return the question that the scheme answers, as far as its name and bits tell.

    Raises:
        HawqError: nothing is searched in this network, or no scheme meets the budgets.
    """
    from search import Question, options

    question = Question(config.arch, graph, _budgets(config.scheme, kinds), costs=kinds)
    own = [config.units[unit] for group in question.groups for unit in group]
    allowed = options({*widths, *(width for pair in own for width in pair)}, apart=any(w != a for w, a in own))
    question = replace(question, allowed=allowed)
    if question.budgets:
        question.check()
    return question


def _budgets(scheme: str, kinds: "Mapping[str, Cost]") -> "tuple[Budget, ...]":
    """Return the budgets a scheme's name tells, or none where it is no list of budgets."""
    import re

    from hawq.cli.console import console
    from hawq.errors import UsageError
    from search import parse_budget

    if re.fullmatch(r"uniform[1-8]", scheme):
        return ()
    try:
        return tuple(parse_budget(text, kinds) for text in scheme.split("+"))
    except UsageError as error:
        console.print(f"no prices, because the scheme's name does not tell its budgets: {error}", soft_wrap=True)
        return ()


def _searched(question: "Question") -> "Question":
    """Return the question that ends the measurement: this one, or the default where there is no budget."""
    from search import parse_budget

    if question.budgets:
        return question
    return replace(question, budgets=(parse_budget(opt.DEFAULT_SCHEME),))
