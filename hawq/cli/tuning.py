"""Tune the layers of a network before it is exported, and tell what that brought."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hawq.integer import IntegerProgram
    from tvm_export.backend import Backend
    from tvm_export.link import Workshop
    from tvm_export.tuning import Tuned, Tuning, TuningLog

__all__ = ["tuned_program"]


def tuned_program(
    program: "IntegerProgram",
    chosen: "Backend",
    batch: int | None,
    workshop: "Workshop",
    log: "TuningLog",
    threads: int,
    seconds: float | None,
) -> "Tuning":
    """Return the plans of a program's layers.

    Args:
        program: certified.
        chosen: the target.
        batch: images per call, None for any number.
        workshop: where kernels are compiled.
        log: of measurements.
        threads: CPU threads to tune for.
        seconds: to spend on trials; None follows the log as it is.

    Raises:
        UsageError: the target or a library of any batch has nothing to tune, or there is no log to follow.
        HawqError: this machine cannot run the target's code, or a plan gives other integers than the default.
    """
    from hawq.cli.console import progress
    from hawq.errors import UsageError
    from hawq.runtime.devices import check_cpu
    from hawq.runtime.threads import use_threads
    from tvm_export.lower import sites
    from tvm_export.tuning import NetworkRig, layers, tune, tuned

    facts = chosen.describe()
    if facts["target"] != "llvm":
        raise UsageError(
            f"target {facts['target']} has nothing to tune: leave --tune and --tune-log out, or use --target llvm"
        )
    if batch is None:
        raise UsageError(
            "which plan is fastest depends on the batch: with --tune and --tune-log give --batch-size a number"
        )
    found = layers(sites(program, chosen, batch), chosen, threads)
    if seconds is None:
        if not log.path.is_file():
            raise UsageError(f"{log.path} does not exist: give --tune to make it, or leave --tune-log out")
        tuning = tuned(found, log, threads)
        _report(tuning, log)
        return tuning

    check_cpu(log.path.parent, facts["mcpu"], facts["features"])
    use_threads(threads)
    with progress() as bars:
        task = bars.add_task("Tuning (s)", total=round(seconds), status="")

        def advance(spent: float, status: str) -> None:
            bars.update(task, completed=min(round(spent), round(seconds)), status=status)

        tuning = tune(
            found,
            lambda: NetworkRig(program, chosen, batch, workshop),
            log,
            threads=threads,
            seconds=seconds,
            advance=advance,
        )
    _report(tuning, log)
    return tuning


def _report(tuning: "Tuning", log: "TuningLog") -> None:
    from hawq.cli.console import console, print_table
    from hawq.runtime.threads import describe_threads

    rows = [row for found in tuning.layers for row in _rows(found)]
    header = ["layer", "default (ms)", "tuned (ms)", "gain", "default plan", "tuned plan"]
    print_table(f"Tuning, {describe_threads(tuning.threads)}", header, rows, caption=_caption(tuning))
    whole = tuning.network
    if whole is not None:
        verdict = "" if tuning.plans else "; that is no gain, so every layer keeps its default plan"
        console.print(f"whole network: {whole.default_ms:.3f} ms by default, {whole.plan_ms:.3f} ms tuned{verdict}")
    console.print(f"tuning log: {log.path}", soft_wrap=True)


def _rows(found: "Tuned") -> list[list[str]]:
    """Return a line for each layer that was measured; equal ones share it."""
    if found.default_ms is None:
        return []
    first, *others = found.layer.ops
    name = f"{first} and {len(others)} like it" if others else first
    default = f"{found.default_ms:.4f}"
    if found.measured is None:
        return [[name, default, default, "-", str(found.plan), "-"]]
    gain = f"{1 - found.measured.ratio:.1%}"
    return [[name, default, f"{found.measured.plan_ms:.4f}", gain, str(found.layer.plans[0]), str(found.plan)]]


def _caption(tuning: "Tuning") -> str:
    measured = [found for found in tuning.layers if found.default_ms is not None]
    before = sum(found.default_ms or 0.0 for found in measured)
    after = sum(found.measured.plan_ms if found.measured else found.default_ms or 0.0 for found in measured)
    return f"these layers together: {before:.3f} ms by default, {after:.3f} ms tuned; equal ones share a line"
