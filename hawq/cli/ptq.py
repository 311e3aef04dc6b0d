"""`hawq ptq`: quantize a trained network without training it."""

from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from torch import Tensor

_RANGES = "Rules for ranges"
_LEARNED = "Learned rounding (adaround, brecq)"


def ptq(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="As for the other commands; distilled makes images from the weights, none uses batch norms alone.",
            show_default="distilled with --weights or --pretrained, else digits",
            rich_help_panel="Data",
        ),
    ] = None,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = "uniform8",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="Methods or presets, separated by commas; `list` explains them.",
        ),
    ] = "naive",
    images: Annotated[int, typer.Option("--images", min=1, help="Training images to calibrate with.")] = 256,
    batch_size: opt.BatchSizeOption = 32,
    stats: opt.StatsOption = None,
    percentile: Annotated[
        float, typer.Option("--percentile", help="Of `percentile`: what is not clipped.", rich_help_panel=_RANGES)
    ] = 99.9,
    clip_std: Annotated[
        float,
        typer.Option("--clip-std", help="Of `std`: standard deviations from the mean.", rich_help_panel=_RANGES),
    ] = 3.0,
    bias_bit: Annotated[
        int, typer.Option("--bias-bit", min=2, max=32, help="Bits of biases, beside a shift for each channel.")
    ] = 32,
    mean_bits: Annotated[
        float | None,
        typer.Option(
            "--mean-bits",
            min=1.0,
            max=8.0,
            help="Of `allocate-bits` and `allocate-bins`: bits a weight on average, 5.3 for example.",
            show_default="those of the scheme",
        ),
    ] = None,
    iterations: Annotated[
        int,
        typer.Option("--iterations", min=1, help="Steps for each unit or block.", rich_help_panel=_LEARNED),
    ] = 500,
    drop: Annotated[
        float,
        typer.Option(
            "--drop",
            min=0.0,
            max=1.0,
            help="Probability with which brecq leaves a value unquantized (QDrop).",
            rich_help_panel=_LEARNED,
        ),
    ] = 0.5,
    memory: Annotated[
        float,
        typer.Option(
            "--memory",
            min=0.0,
            help="GiB of activations kept in memory; the rest goes to files of the run.",
            rich_help_panel=_LEARNED,
        ),
    ] = 4.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a trained checkpoint of the scheme, too.")
    ] = False,
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
    """Quantize a trained network: find ranges, correct what rounding did; nothing is trained, no labels are read.

    Example: hawq ptq -a mobilenetv2_w1 --weights FILE --data DIR --scheme uniform4 --method aciq

    The checkpoint is like a trained one: `hawq export`, `verify`, `eval` and `train --resume` go on from it.
    """
    from functools import cache

    from hawq.cli.console import console, print_json, print_table, steps
    from hawq.cli.quality import compare_quality
    from hawq.cli.session import NO_DATA, DataRequest, open_session
    from hawq.data.distilled import DISTILLED
    from hawq.ptq import METHODS, PRESETS, Settings, Statistics, Workbench, parse_methods
    from hawq.ptq.checkpoint import check_replaceable, save_quantized
    from hawq.quantizers import QuantOptions
    from hawq.schemes import check_exists, resolve_scheme
    from hawq.train.float import FloatRequest

    if method == "list":
        known = sorted(METHODS.values(), key=lambda found: (found.stage, found.name))
        rows = [[found.name, found.stage.name.lower(), found.summary] for found in known]
        print_table("methods", ["name", "changes", "what it does"], rows)
        print_table("presets", ["name", "methods"], [[name, ",".join(names)] for name, names in PRESETS.items()])
        return
    methods = parse_methods(method)
    check_exists(quant_scheme, arch)
    source = data or (DISTILLED if weights or pretrained else opt.DEFAULT_DATA)
    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights, seed),
        DataRequest(source, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
        imageless=True,
    )
    bits = resolve_scheme(quant_scheme, arch, session.graph)
    path = session.run.best(bits.scheme)
    if not overwrite:
        check_replaceable(path)

    @cache
    def kept() -> "list[Tensor]":
        found = session.data.batches("train", batch_size, shuffle=True, seed=seed, limit=images, workers=workers)
        return [batch for batch, _ in found if len(batch)]

    with steps() as heard:
        bench = Workbench.of(
            session.graph,
            bits,
            options=QuantOptions(act_percentile=percentile, clip_stds=clip_std, bias_bits=bias_bit),
            images=kept if len(session.data.train) else None,
            statistics=stats and (lambda graph: Statistics.kept(stats, graph, kept)),
            image_range=session.data.preprocessing.value_range,
            settings=Settings(seed, iterations, drop, memory, mean_bits),
            progress=heard,
            folder=path.parent,
        )
        model = bench.run(methods)
    simulated = model.options.fixed_point
    if not simulated:
        save_quantized(path, model, [found.name for found in methods])
    console.print(f"{bits.scheme} by {', '.join(found.name for found in methods)}")
    for note in bench.notes:
        console.print(note, soft_wrap=True)
    figures = {}
    if source in (DISTILLED, NO_DATA):
        console.print("no real images, so no accuracy; measure it with `hawq eval --data DIR`")
    else:
        networks = {"float": session.model, f"{bits.scheme}, {'simulated' if simulated else 'integers'}": model}
        figures = compare_quality(session, networks, workers=workers)
    given = {"-a": arch, "--data": source, "--data-path": data_path, "--quant-scheme": quant_scheme, "--size": size,
             "--mean": mean, "--std": std, "--interpolation": interpolation, "--weights": weights,
             "--run-dir": run_dir, "--num-classes": num_classes}  # fmt: skip
    if not simulated:
        console.print(f"checkpoint: {path}; next: {opt.following('hawq export --target llvm', given)}", soft_wrap=True)
    if as_json:
        print_json({"scheme": bits.scheme, "methods": [found.name for found in methods],
                    "checkpoint": None if simulated else str(path), "accuracy": figures})  # fmt: skip
