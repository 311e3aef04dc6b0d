"""`hawq export`: checkpoint to IntegerProgram, certificate and compiled library."""

from pathlib import Path
from typing import Annotated

import typer

from hawq.cli import options as opt


def export(
    network: opt.NetworkOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    target: opt.TargetOption = "llvm",
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="GPU architectures, each sm_75, sm_80, sm_86, sm_89 or sm_90.")
    ] = None,
    mcpu: Annotated[str | None, typer.Option("--mcpu", help="LLVM's name of the CPU.", show_default="this CPU")] = None,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph", help="Launch a CUDA library's kernels as one graph.", show_default="no"
        ),
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", help="Images per call: a number, or any (llvm only).")
    ] = "1",
    pixels: Annotated[
        bool, typer.Option("--pixels/--float-input", help="Take raw uint8 pixels instead of normalised float32.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Kernels to compile at once.", show_default="one a core")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir",
            help="Where compiled kernels are kept for the next export.",
            show_default="HAWQ_CACHE, or ~/.cache/hawq/kernels",
        ),
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Measure on this machine how layers run fastest.")] = False,
    tune_seconds: Annotated[
        float, typer.Option("--tune-seconds", min=0.0, help="Time for trials, those in the log included.")
    ] = 300.0,
    tune_log: Annotated[
        Path | None,
        typer.Option(
            "--tune-log",
            help="Log of measurements: --tune goes on from it, and without --tune it is followed as it is.",
            show_default="tuning.jsonl beside the library, with --tune",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads to tune for.")] = 1,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="Instead of the run's best.pt.")] = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Lower a trained network to integers, prove that no accumulator overflows, and compile it.

    Example: hawq export --target cuda --arch sm_80 --arch sm_90

    Example: hawq export --tune --threads 2

    A CUDA library is built without a GPU. The integer program and its certificate lie beside the checkpoint.
    """
    from hawq.cli.console import console, print_json, print_table
    from hawq.cli.session import DataRequest, open_session
    from hawq.cli.tuning import tuned_program
    from hawq.integer import certify
    from hawq.qat.checkpoint import load_quantized
    from hawq.qat.lower import PixelScaling
    from hawq.runtime.threads import cores
    from hawq.schemes import scheme_of
    from hawq.train.float import FloatRequest
    from tvm_export import export as compile_program
    from tvm_export.backend import backend
    from tvm_export.cache import KernelCache
    from tvm_export.link import Workshop
    from tvm_export.tuning import TuningLog

    batch = opt.parse_batch(batch_size)  # before a float network is trained for nothing
    session = open_session(
        FloatRequest(network, num_classes, pretrained, weights),
        DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
        imageless=True,
    )
    scheme = scheme_of(quant_scheme, network)
    model = load_quantized(checkpoint or session.run.best(scheme), session.graph)
    preprocessing = session.data.preprocessing
    program = model.lower(PixelScaling(preprocessing.mean, preprocessing.std) if pixels else None)
    certificate = certify(program)
    path = session.run.program(scheme)
    program.save(path, certificate=certificate.to_json())
    rows = [[b.op, f"{b.lo:,}", f"{b.hi:,}", str(b.dtype).removeprefix("torch.")] for b in certificate.bounds]
    print_table("Certificate: every partial sum lies in", ["op", "lowest", "highest", "exact in"], rows)
    cache = KernelCache(cache_dir)
    tuning = None
    if tune or tune_log is not None:
        log = TuningLog(tune_log or session.run.tuning(scheme, target))
        chosen = backend(target, mcpu=mcpu, arch=arch or None, cuda_graph=cuda_graph)
        workshop = Workshop(KernelCache(cache_dir), jobs or cores())
        tuning = tuned_program(program, chosen, batch, workshop, log, threads, tune_seconds if tune else None)
    single = len(program.outputs) == 1  # of several none is known to be the classes
    names = session.data.names_of(program.types[program.output.tensor].shape[0]) if single else None
    with console.status(f"compiling for {target}"):
        library = compile_program(
            program,
            target,
            session.run.export(scheme, target),
            batch=batch,
            preprocessing=preprocessing,
            class_names=names,
            workshop=Workshop(cache, jobs or cores()),
            tuning=tuning,
            mcpu=mcpu,
            arch=arch or None,
            cuda_graph=cuda_graph,
        )
    console.print(f"integer program: {path}", soft_wrap=True)
    console.print(f"library: {library} ({library.stat().st_size / 2**20:.2f} MiB)", soft_wrap=True)
    console.print(f"{cache.found} of {cache.found + cache.made} kernels reused")
    given = {"-a": network, "--data": data, "--data-path": data_path, "--quant-scheme": quant_scheme, "--size": size,
             "--mean": mean, "--std": std, "--interpolation": interpolation, "--run-dir": run_dir}  # fmt: skip
    console.print(f"next: {opt.following(f'hawq verify --target {target}', given)}", soft_wrap=True)
    if as_json:
        print_json({"program": str(path), "library": str(library), "certificate": certificate.to_json(),
                    "kernels": {"reused": cache.found, "compiled": cache.made},
                    "tuning": None if tuning is None else tuning.to_json()})  # fmt: skip
