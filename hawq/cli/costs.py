"""`hawq costs`: what a scheme costs, unit by unit and in all."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from hawq.bitconfig import BitConfig
    from hawq.graph.ir import FloatGraph
    from search.latency import LatencyTable

__all__ = ["costs"]


def costs(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    size: opt.SizeOption = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Classes.", show_default="the library's")
    ] = None,
    latency_table: opt.LatencyTableOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Print size and bit operations of a scheme, unit by unit, beside the published figures where there are any.

    Example: hawq costs -a resnet18 --scheme bops0.5

    Needs no weights and no data.
    """
    from hawq.cli.console import print_json
    from hawq.errors import UsageError
    from hawq.graph.trace import trace
    from hawq.models import create_model, input_spec
    from hawq.schemes import resolve_scheme

    pixels = size or input_spec(arch).size
    if pixels is None:
        raise UsageError(f"the library does not say for which images {arch} is made; give --size, for example 224")
    graph = trace(create_model(arch, num_classes=num_classes), (3, pixels, pixels))
    table = None if latency_table is None else _table(latency_table, arch, graph)
    config = resolve_scheme(quant_scheme, arch, graph)
    report = {"arch": arch, "scheme": config.scheme, "image_size": pixels, **_figures(config, graph, table)}
    _print(report)
    if as_json:
        print_json(report)


def _table(path: Path, arch: str, graph: "FloatGraph") -> "LatencyTable":
    from search.latency import check_fits
    from search.latency_files import load_table

    table = load_table(path, arch)
    check_fits(table, graph, foreign=True)  # to look at figures of another device is fine; the report names it
    return table


def _figures(config: "BitConfig", graph: "FloatGraph", table: "LatencyTable | None") -> dict[str, Any]:
    """Return the units' costs, the totals, and what was published; costs in plain units (bytes, operations, ms).

    The uniform schemes are left out where the table of latencies has none at their bits.
    """
    from hawq.bitconfig import UnitBits
    from hawq.graph.structure import pinned_units
    from hawq.published import published_config
    from hawq.schemes import uniform
    from search.accounting import paper_figures
    from search.costs import COSTS, total_cost, unit_facts
    from search.latency import latency_cost
    from search.model_zoo import published_figures

    facts = unit_facts(graph)
    kinds = COSTS if table is None else {**COSTS, "latency": latency_cost(table)}
    known = [bits for bits in (8, 4) if table is None or UnitBits(bits, bits) in table.pairs]
    schemes = [config, *(uniform(config.arch, graph, bits) for bits in known)]
    paper = paper_figures(config.arch, facts, pinned_units(graph), config.units)
    published = published_figures(config.arch, config.scheme)
    theirs = published_config(config.arch, config.scheme)
    return {
        "units": {
            unit.name: {
                "weights": unit.weights,
                "macs": unit.macs,
                "bits": config.units[unit.name]._asdict(),
                **{name: cost.of(unit, config.units[unit.name]) for name, cost in kinds.items()},
            }
            for unit in facts.values()
        },
        "totals": {
            scheme.scheme: {name: total_cost(cost, facts.values(), scheme.units) for name, cost in kinds.items()}
            for scheme in schemes
        },
        "latency": None if table is None else table.origin,
        "paper_accounting": None if paper is None else {**vars(paper), "inferred": True},
        "published": None
        if published is None
        else {**vars(published), "same_bits": theirs is None or theirs.units == config.units},
    }


def _print(report: dict[str, Any]) -> None:
    from hawq.bitconfig import UnitBits
    from hawq.cli.console import console, print_table
    from search.costs import COSTS

    latency = report["latency"] is not None

    def cells(costs: dict[str, float]) -> list[str]:
        return [f"{cost.scaled(costs[name]):.3f}" for name, cost in COSTS.items()] + (
            [f"{costs['latency']:.3f}"] if latency else []
        )

    units = [f"{name} ({cost.symbol})" for name, cost in COSTS.items()] + (["latency (ms)"] if latency else [])
    rows = [
        [name, f"{row['weights']:,}", f"{row['macs'] / 1e6:.3f}", str(UnitBits(**row["bits"])), *cells(row)]
        for name, row in report["units"].items()
    ]
    title = f"{report['arch']}, {report['scheme']}, images of {report['image_size']}x{report['image_size']}"
    print_table(title, ["unit", "weights", "MACs (M)", "bits", *units], rows)

    own, *others = [[name, *cells(costs)] for name, costs in report["totals"].items()]
    beside, blank = [], ["-"] * (len(units) - 2)
    paper, published = report["paper_accounting"], report["published"]
    if paper is not None:
        figures = [f"{paper['size_mb']:.3f}", f"{paper['bops_g']:.3f}"]
        beside.append([f"{own[0]}, as the paper counts (inferred)", *figures, *blank])
    if published is not None:
        bits = "" if published["same_bits"] else ", other bits"
        beside.append([f"{own[0]}, published{bits}", f"{published['size_mb']:g}", f"{published['bops_g']:g}", *blank])
    print_table("Totals, first and last units included", ["scheme", *units], [own, *beside, *others])
    if latency:
        console.print(f"latency: {report['latency']}; the sum over units")
    if paper is not None:
        console.print("how the paper counts is inferred from its table, see docs/costs.md")
    if published is not None:
        speed = f", {published['speedup']:g} times as fast as float32" if published["speedup"] else ""
        timed = f", {published['latency_ms']:g} ms for 8 images on a T4" if published["latency_ms"] else ""
        console.print(f"published: top-1 {published['top1']:g}%{speed}{timed} (arXiv 2011.10680)", soft_wrap=True)
