"""`hawq analyze`: what each unit loses by quantization, and what would help."""

from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["analyze"]


def analyze(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = "uniform4",
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Methods of `hawq ptq` to quantize with, in memory.",
            show_default="the run's checkpoint of the scheme, else naive",
        ),
    ] = None,
    bits: Annotated[str, typer.Option("--bits", help="Widths of the sweep, each 2..8.")] = "2,3,4,8",
    images: Annotated[int, typer.Option("--images", min=1, help="Test images to measure on.")] = 500,
    calibration: Annotated[
        int, typer.Option("--calibration", min=1, help="Training images to find ranges with.")
    ] = 256,
    batch_size: opt.BatchSizeOption = 50,
    stats: opt.StatsOption = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    workers: opt.WorkersOption = 0,
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Quantize one unit at a time: what does it cost, is it clipped or rounded away, how few bits would do?

    Example: hawq analyze -a resnet20_cifar10 --weights FILE --data DIR --scheme uniform4 --method mse --bits 2,3,4,8

    A checkpoint that `hawq train` or `hawq ptq` left in the run is analyzed as it is, unless --method is given.
    Ranges come from the float network, so that no unit is blamed for what those before it do.
    """
    from hawq.analysis import analyze as analyzed
    from hawq.analysis import reference_graph, remedies_of, sweep_models
    from hawq.cli.analyze_picture import draw
    from hawq.cli.analyze_report import facts_of, report, write_table
    from hawq.cli.console import console, print_json, steps
    from hawq.cli.session import DataRequest, open_session
    from hawq.errors import UsageError
    from hawq.files import write_atomically
    from hawq.ptq import Settings, Stage, Statistics, Workbench, parse_methods
    from hawq.qat.checkpoint import load_quantized
    from hawq.schemes import check_exists, resolve_scheme
    from hawq.task import Task
    from hawq.train.float import FloatRequest

    widths, methods = opt.parse_widths(bits), parse_methods(method or "naive")
    check_exists(quant_scheme, arch)
    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights, seed),
        DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
    )
    if session.data.task is not Task.CLASSIFICATION:
        raise UsageError("only classifiers can be analyzed; give --data with one label an image")
    config = resolve_scheme(quant_scheme, arch, session.graph)

    def seen() -> "list[Tensor]":
        found = session.data.batches("train", batch_size, shuffle=True, seed=seed, limit=calibration, workers=workers)
        return [batch for batch, _ in found]

    best = session.run.best(config.scheme)
    with steps() as heard:
        if method is None and best.is_file():
            source = str(best)
            model = load_quantized(best, session.graph)
            graph, options = reference_graph(model), model.options
            statistics = Statistics.kept(stats, graph, seen) if stats else Statistics.collect(graph, seen())
        else:
            source = ", ".join(found.name for found in methods)
            bench = Workbench.of(session.graph, config, images=seen, settings=Settings(seed), progress=heard)
            for found in methods:
                if found.stage is Stage.FLOAT:
                    bench.apply(found)
            graph = bench.graph
            statistics = Statistics.kept(stats, graph, seen) if stats else Statistics.collect(graph, seen())
            bench.statistics = lambda graph: statistics
            model = bench.run([found for found in methods if found.stage is not Stage.FLOAT])
            options = bench.options
        sweep = sweep_models(graph, options, statistics, widths)
        total = min(images, len(session.data.test))
        batches = session.data.batches("test", batch_size, limit=images, workers=workers)
        found_units = analyzed(graph, model, sweep, batches, heard, total)  # type: ignore[arg-type]  # labels
    remedies = remedies_of(model, statistics)
    title = f"{arch}, {config.scheme} by {source}"
    report(title, found_units, remedies)
    table = session.run.analysis(config.scheme)
    write_atomically(table, lambda path: write_table(path, found_units, remedies))
    figure = table.with_suffix(".png")
    write_atomically(figure, lambda path: draw(path, title, found_units))
    console.print(f"table: {table}; figure: {figure}", soft_wrap=True)
    if as_json:
        print_json({"arch": arch, "scheme": config.scheme, "source": source, "table": str(table),
                    "figure": str(figure), **facts_of(found_units, remedies)})  # fmt: skip
