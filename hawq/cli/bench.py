"""`hawq bench`: latency of a library beside the float network's."""

from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt
from hawq.errors import UsageError

if TYPE_CHECKING:
    from tvm_export import CompiledModel


def bench(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    target: opt.TargetOption = "llvm",
    threads: opt.MeasuredThreadsOption = 1,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "-b", min=1, help="Images per call.", show_default="the library's, or 1"),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time to spend on each figure.")] = 2.0,
    run_dir: opt.RunDirOption = None,
    size: opt.SizeOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Measure the median latency of one batch, beside PyTorch's float32 in the same run.

    Example: hawq bench --target llvm --threads 2
    """
    import torch

    from hawq.cli.console import print_json, print_table
    from hawq.cli.session import DataRequest, open_data, open_session
    from hawq.integer import IntegerProgram
    from hawq.integer.ops import PixelInput
    from hawq.runs import RunDir
    from hawq.runtime.threads import describe_threads, use_threads
    from hawq.schemes import scheme_of
    from hawq.train.float import FloatRequest
    from tvm_export import load, measure

    torch.set_num_threads(use_threads(threads))
    request, scheme = DataRequest(data, data_path, size=size), scheme_of(quant_scheme, arch)
    run = RunDir.of(arch, open_data(arch, request, seed=0).name, run_dir)
    program = IntegerProgram.load(run.program(scheme))  # before a float network is trained for nothing
    compiled = load(run.export(scheme, target))
    count = _batch(compiled, batch_size)
    session = open_session(FloatRequest(arch), request, run_dir)
    raw = isinstance(program.input, PixelInput)
    batch, _ = next(session.data.batches("test", count, raw=raw))
    image, _ = next(session.data.batches("test", count))
    device = "cuda" if target == "cuda" else "cpu"
    model, image = session.model.to(device), image.to(device)
    with torch.inference_mode():
        figures = {
            f"{scheme}, {target}": measure(compiled.runner(batch), seconds=seconds),
            "float32, PyTorch": measure(lambda: model(image), seconds=seconds),
        }
    slowest = max(latency.median_ms for latency in figures.values())
    rows = [
        [name, f"{x.median_ms:.3f}", f"{x.p10_ms:.3f}", f"{x.p90_ms:.3f}", x.runs, f"{slowest / x.median_ms:.2f}x"]
        for name, x in figures.items()
    ]
    title = f"{arch}, batch {count}, {describe_threads(threads)}"
    print_table(title, ["network", "median (ms)", "p10", "p90", "runs", "speed"], rows)
    if as_json:
        print_json({"arch": arch, "batch": count, "threads": threads,
                    "latency": {name: vars(latency) for name, latency in figures.items()}})  # fmt: skip


def _batch(compiled: "CompiledModel", wanted: int | None) -> int:
    """Return how many images a call is to have."""
    count = wanted or compiled.batch or 1
    if count > compiled.most or count != (compiled.batch or count):
        takes = f"at most {compiled.most}" if compiled.batch is None else f"exactly {compiled.batch}"
        raise UsageError(
            f"--batch-size {count}: the library takes {takes} images a call; export one that takes {count}"
        )
    return count
