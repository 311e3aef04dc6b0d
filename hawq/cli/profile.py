"""`hawq profile`: the latency table that a search with a latency budget needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from torch import nn

    from hawq.bitconfig import UnitBits
    from hawq.data import ImageData
    from hawq.runs import RunDir
    from hawq.train.float import FloatRequest
    from search import LatencyTable, Timing, UniformRun
    from tvm_export import Latency
    from tvm_export.profile import Profile

__all__ = ["profile"]

_WORTHWHILE = 0.05
"""Share of the time that few bits must save for a latency budget to have something to choose from."""

_DISTURBED = 1.25
"""Ratio of sum and whole, either way, beyond which a measurement is doubtful."""


def profile(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    target: opt.TargetOption = "llvm",
    bits: Annotated[str, typer.Option("--bits", help="Widths to measure, each 2..8.")] = "4,8",
    apart: Annotated[bool, typer.Option("--apart", help="Measure every pair of weight and activation width.")] = False,
    batch_size: Annotated[int, typer.Option("--batch", "--batch-size", "-b", min=1, help="Images per call.")] = 1,
    threads: opt.MeasuredThreadsOption = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time to spend on each pair of bits.")] = 4.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="runs/<arch>-<data>/latency-<target>.json"),
    ] = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    size: opt.SizeOption = None,
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Measure how long every unit takes at each bit width, inside the whole compiled network.

    Example: hawq profile -a resnet18 --size 224 --target llvm --threads 2

    Latency depends on shapes and not on weights: where the run has none, random ones do, and nothing is trained.
    """
    import torch
    import tvm

    from hawq import __version__
    from hawq.cli.console import console, print_json, progress
    from hawq.cli.session import DataRequest, open_data
    from hawq.graph.trace import trace
    from hawq.hardware import present_device
    from hawq.runs import RunDir
    from hawq.runtime.threads import use_threads
    from hawq.train.float import FloatRequest
    from search import LatencyTable, options, save_table
    from tvm_export.profile import profile as measure_programs
    from tvm_export.profile import steps, uniform_program

    torch.set_num_threads(use_threads(threads))
    device = present_device(target)
    pairs = options(opt.parse_widths(bits), apart=apart)
    images = open_data(arch, DataRequest(data, data_path, size=size), seed)
    run = RunDir.of(arch, images.name, run_dir)
    side = images.preprocessing.size
    model = _network(FloatRequest(arch, num_classes, pretrained, weights, seed), images, run)
    graph = trace(model, (3, side, side))
    programs = {pair: uniform_program(graph, arch, pair, seed) for pair in pairs}
    with progress() as bars:
        task = bars.add_task("Latency", total=steps(len(programs)), status="")

        def advance(status: str) -> None:
            bars.update(task, advance=1, status=status)

        found = measure_programs(programs, graph.units, target, batch=batch_size, seconds=seconds, advance=advance)
    runs = {pair: _uniform_run(measured) for pair, measured in found.items()}
    table = LatencyTable.of(arch, graph, runs, target=target, batch=batch_size, threads=threads, device=device)
    versions = {"hawq": __version__, "torch": torch.__version__, "tvm": tvm.__version__}
    path = output or run.latency(target)
    asked = {"bits": bits, "apart": apart, "seconds": seconds, "seed": seed, "size": side, "data": images.name}
    save_table(table, path, options=asked, versions=versions)
    _report(table, found)
    console.print(f"latency table: {path}", soft_wrap=True)
    if as_json:
        print_json({"path": str(path), "arch": arch, "target": target, "batch": batch_size, "threads": threads,
                    "device": str(device), "totals": {str(pair): _totals(p) for pair, p in found.items()},
                    "units": {name: {str(b): vars(t) for b, t in row.items()} for name, row in table.units.items()}
                    })  # fmt: skip


def _network(request: "FloatRequest", images: "ImageData", run: "RunDir") -> "nn.Module":
    """Return the network with the weights that are given or in the run, with random ones otherwise."""
    import torch

    from hawq.cli.session import training_progress
    from hawq.models import create_model
    from hawq.train.float import ensure_float

    if request.pretrained or request.weights is not None or run.float_weights.is_file():
        return ensure_float(request, images, run, lambda: training_progress(""))
    torch.manual_seed(request.seed)
    return create_model(request.arch, num_classes=request.num_classes or images.num_classes)


def _uniform_run(profile: "Profile") -> "UniformRun":
    from search import UniformRun

    units = {name: _timing(latency) for name, latency in profile.units.items()}
    return UniformRun(units, _timing(profile.rest), _timing(profile.whole))


def _timing(latency: "Latency") -> "Timing":
    from search import Timing

    return Timing(latency.median_ms, latency.p10_ms, latency.p90_ms)


def _totals(profile: "Profile") -> dict[str, float]:
    """Return the sums of medians beside the network measured undivided, in milliseconds."""
    units = sum(latency.median_ms for latency in profile.units.values())
    return {"units": units, "rest": profile.rest.median_ms, "sum": profile.total_ms, "whole": profile.whole.median_ms}


def _report(table: "LatencyTable", found: Mapping["UnitBits", "Profile"]) -> None:
    from hawq.cli.console import console, print_table

    title = f"{table.arch} on {table.target}, {table.origin}"
    rows = [[name, *(_cell(row.get(pair)) for pair in table.pairs)] for name, row in table.units.items()]
    header = ["unit", *(f"{pair} bits (ms)" for pair in table.pairs)]
    print_table(title, header, rows, caption="median (10th to 90th percentile) of one batch; first and last units at 8")
    totals = []
    for pair, profile in found.items():
        units, rest, total, whole = _totals(profile).values()
        figures = [f"{ms:.3f}" for ms in (units, rest, total, whole)]
        totals.append([f"uniform{pair}", *figures, f"{total / whole:.2f}"])
    print_table("Network (ms)", ["scheme", "units", "rest", "sum", "whole", "sum / whole"], totals)
    for note in (_disturbance(found), _little_choice(table)):
        if note is not None:
            console.print(note, soft_wrap=True)


def _cell(timing: "Timing | None") -> str:
    return "-" if timing is None else f"{timing.median_ms:.4f} ({timing.p10_ms:.4f} to {timing.p90_ms:.4f})"


def _disturbance(found: Mapping["UnitBits", "Profile"]) -> str | None:
    """Say so where the parts do not make up the whole."""
    ratios = [profile.total_ms / profile.whole.median_ms for profile in found.values()]
    if all(1 / _DISTURBED < ratio < _DISTURBED for ratio in ratios):
        return None
    return (
        "note: sum and whole disagree, as they do when other programs take CPU time from the threads; measure again on "
        "an idle machine, with fewer --threads, or for more --seconds"
    )


def _little_choice(table: "LatencyTable") -> str | None:
    """Say so where fewer bits bring little on this target: a latency budget would then choose by noise."""
    uniform = [pair for pair in table.whole if pair.weight == pair.activation]
    if len(uniform) < 2:
        return None
    few, many = min(uniform), max(uniform)
    fast, slow = table.total(few), table.total(many)
    if fast < (1 - _WORTHWHILE) * slow:
        return None
    return (
        f"note: the units take {fast:.3f} ms at {few} bits and {slow:.3f} ms at {many} on {table.target}, so a latency "
        "budget has little to choose from; budgets of bops or size say more"
    )
