"""`hawq demo`: the whole pipeline on the embedded digits, in one table."""

from typing import TYPE_CHECKING, Any

from hawq.cli import options as opt

if TYPE_CHECKING:
    from hawq.bitconfig import BitConfig
    from hawq.cli.session import Session
    from hawq.evaluation import Accuracy

_SCHEMES = ("uniform8", "bops0.5", "uniform4")


def demo(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    run_dir: opt.RunDirOption = None,
    threads: opt.MeasuredThreadsOption = 1,
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Train, search, quantize, compile and verify on scikit-learn's handwritten digits; print one table.

    Example: hawq demo

    What a former run left is used again: float weights, sensitivities, checkpoints and libraries.
    """
    import torch

    from hawq.cli.console import console, print_json, print_table
    from hawq.cli.session import DataRequest, open_session
    from hawq.evaluation import accuracy
    from hawq.runtime.threads import describe_threads, use_threads
    from hawq.train.float import FloatRequest

    use_threads(threads)
    session = open_session(FloatRequest(arch, seed=seed), DataRequest("digits"), run_dir)
    with torch.inference_mode():
        reference = accuracy(session.model, session.data.batches("test", 128))
    results = [_scheme(session, bits, reference, threads, seed) for bits in _configs(session, seed)]
    header = ["scheme", "size (MiB)", "BOPS (G)", "float top-1", "integer top-1", "latency (ms)", "bit-exact"]
    print_table(
        f"{arch} on {len(session.data.test)} handwritten digits; "
        f"latency: median, batch 1, llvm, {describe_threads(threads)}",
        header,
        [[r[name] for name in header] for r in results],
    )
    console.print(f"files: {session.run.root}; next: hawq search --help, or your own network with -a", soft_wrap=True)
    if as_json:
        print_json(results)


def _configs(session: "Session", seed: int) -> list["BitConfig"]:
    """Return the bit configs of the demo's schemes; the searched one is found and written like `hawq search` does."""
    from hawq.cli.scheme_report import save_scheme
    from hawq.cli.sensitivity import ImageBudget, measure_session
    from hawq.distributed import World
    from hawq.schemes import resolve_scheme
    from hawq.sensitivity import Sampling
    from search import Question, find_scheme, parse_budget
    from search.confidence import UntilStable, resample

    question = Question(session.arch, session.graph, (parse_budget("bops0.5"),))
    sampling = Sampling(opt.DEFAULT_METRIC, seed=seed)
    measured = measure_session(session, sampling, ImageBudget(), UntilStable(question), World())
    scheme = find_scheme(question, measured.omega)
    save_scheme(scheme, measured, resample(question, measured), session)
    return [scheme.config if name == scheme.config.scheme else resolve_scheme(name, session.arch, session.graph)
            for name in _SCHEMES]  # fmt: skip


def _scheme(session: "Session", bits: "BitConfig", reference: "Accuracy", threads: int, seed: int) -> dict[str, Any]:
    """Train, lower, compile, verify and measure one scheme; return its row of the table."""
    from hawq.cli.console import console
    from hawq.evaluation import accuracy
    from search import COSTS, scheme_costs, unit_facts
    from tvm_export import load, measure, verify

    model = _trained(session, bits, seed)
    program = model.lower()
    folder = session.run.export(bits.scheme, "llvm")
    _compiled(program, session, bits.scheme)
    compiled = load(folder)
    images, _ = next(session.data.batches("test", len(session.data.test)))
    with console.status(f"verifying {bits.scheme}"):
        report = verify(program, compiled, images)
    report.raise_if_failed()
    result = accuracy(compiled.logits, session.data.batches("test", 128))
    latency = measure(compiled.runner(images[:1]))
    costs = scheme_costs(bits, unit_facts(session.graph))
    return {
        "scheme": bits.scheme,
        "size (MiB)": f"{COSTS['size'].scaled(costs['size']):.3f}",
        "BOPS (G)": f"{COSTS['bops'].scaled(costs['bops']):.3f}",
        "float top-1": f"{reference.top1:.2f}",
        "integer top-1": f"{result.top1:.2f}",
        "latency (ms)": f"{latency.median_ms:.3f}",
        "bit-exact": f"{report.images} images",
    }


def _trained(session: "Session", bits: "BitConfig", seed: int) -> Any:
    """Return the quantized model: of the run's checkpoint if it has these bits, newly trained otherwise."""
    from dataclasses import replace

    from hawq.cli.training_progress import training_progress
    from hawq.qat.checkpoint import load_quantized
    from hawq.quantizers import QuantOptions
    from hawq.train.begin import Beginning
    from hawq.train.quantized import QuantizedRun, train_quantized
    from hawq.train.recipes import quantized_recipe

    best = session.run.best(bits.scheme)
    if best.is_file():
        model = load_quantized(best, session.graph)
        if dict(model.bits.units) == dict(bits.units):
            return model
    config = replace(quantized_recipe(session.data.name), seed=seed)
    run = QuantizedRun(Beginning(bits, QuantOptions()), config, session.run.scheme(bits.scheme))
    title = f"training {bits.scheme}"
    model, _ = train_quantized(run, session.graph, session.data, lambda: training_progress(title))
    return model


def _compiled(program: Any, session: "Session", scheme: str) -> None:
    """Compile the program unless the run holds its library already."""
    from hawq.cli.console import console
    from hawq.errors import HawqError
    from hawq.integer import certify
    from tvm_export import export, fingerprint, load

    folder = session.run.export(scheme, "llvm")
    try:
        if load(folder).manifest["program"] == fingerprint(program):
            return
    except HawqError:
        pass  # none yet, or one that this machine cannot load
    program.save(session.run.program(scheme), certificate=certify(program).to_json())
    with console.status(f"compiling {scheme}"):
        data = session.data
        export(program, "llvm", folder, preprocessing=data.preprocessing, class_names=data.class_names)
