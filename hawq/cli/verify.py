"""`hawq verify`: compare a library with the integer program on real images."""

from typing import Annotated

import typer

from hawq.cli import options as opt


def verify(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    target: opt.TargetOption = "llvm",
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="Test images to compare on.")] = 256,
    until: Annotated[str | None, typer.Option("--until", help="Compare every tensor up to this op, or 'all'.")] = None,
    threads: opt.ThreadsOption = None,
    run_dir: opt.RunDirOption = None,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Run the library and the exact reference on the same images and compare every integer.

    Example: hawq verify --target llvm --until all

    On a mismatch: exit code 1 and the first op, index and both values.
    """
    import torch

    from hawq.cli.console import console, print_json
    from hawq.cli.session import DataRequest, open_data
    from hawq.integer import IntegerProgram
    from hawq.integer.ops import PixelInput
    from hawq.runs import RunDir
    from hawq.runtime.threads import describe_threads, use_threads
    from hawq.schemes import scheme_of
    from tvm_export import load
    from tvm_export import verify as compare

    count = use_threads(threads)
    request = DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation)
    found = open_data(arch, request, seed=0)
    run = RunDir.of(arch, found.name, run_dir)
    scheme = scheme_of(quant_scheme, arch)
    program = IntegerProgram.load(run.program(scheme))
    compiled = load(run.export(scheme, target))
    raw = isinstance(program.input, PixelInput)
    pixels = torch.cat([batch for batch, _ in found.batches("test", 64, limit=images, raw=raw)])
    with console.status(f"comparing {len(pixels)} images"):
        report = compare(program, compiled, pixels, until)
    if as_json:
        print_json({"exact": report.exact, "images": report.images, "integers": report.integers,
                    "tensors": len(report.tensors), "mismatch": str(report.mismatch or "")})  # fmt: skip
    report.raise_if_failed()
    console.print(
        f"bit-exact: {report.integers:,} integers of {len(report.tensors)} tensors equal over {report.images} images "
        f"({scheme}, {'cuda' if target == 'cuda' else f'{target}, {describe_threads(count)}'})"
    )
