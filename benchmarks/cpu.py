"""Time our CPU libraries beside torch, ONNX Runtime and OpenVINO, after checking that every integer is right.

Example: python benchmarks/cpu.py --quick

Each side runs in a process of its own, on exactly as many cores as it has threads, and the sides take turns. Of a
side with several settings the fastest is measured. Weights are random: latency does not depend on them.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from cpu_layers import Layers, measure_layers
from cpu_sides import SIDES, Subject
from cpu_turns import alone, cores, ratios, take_turns
from sections import markdown_table, write_section


@dataclass(frozen=True)
class _Extent:
    """What is measured, and for how long, where the options do not say."""

    networks: Sequence[str]
    batches: Sequence[int]
    threads: Sequence[int]
    repeat: int
    seconds: float


_FULL = _Extent(("resnet18", "resnet50", "mobilenetv2_w1", "inceptionv3"), (1, 8), (1, 2), 7, 0.5)
_QUICK = _Extent(("resnet18",), (1,), (1,), 5, 0.3)
_REFERENCE = "uniform8"
_PACKAGES = ("torch", "apache-tvm", "onnx", "onnxruntime", "openvino")
_IDLE = 0.2
"""Load average, per core, below which a machine counts as idle."""


@dataclass(frozen=True)
class Figure:
    """One side on one network, batch and number of threads.

    Attributes:
        network: as for -a.
        batch: images per call.
        threads: each on a core.
        side: as for --side.
        median_ms: of all runs, milliseconds per batch; None where a package is missing.
        min_ms: the fastest run.
        ratio: by how much it is slower than ours at uniform8: median over the rounds.
        runs: how many were timed.
        note: what was checked, the fastest setting, or why there is no figure.
    """

    network: str
    batch: int
    threads: int
    side: str
    median_ms: float | None
    min_ms: float | None
    ratio: float | None
    runs: int
    note: str


def prepare(names: Sequence[str], subject: Subject, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Prepare sides.

    Args:
        names: of the sides.
        subject: the network and batch.
        folder: gets their files.

    Returns:
        What was checked, by name, and, for those whose packages are missing, how to get them.

    Raises:
        HawqError: an integer of ours is wrong.
    """
    checked: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            checked[name] = SIDES[name].prepare(subject, folder)
        except ModuleNotFoundError as error:
            if not SIDES[name].packages:
                raise
            missing[name] = f"not measured, no module {error.name}: pip install 'hawq[peers]'"
    return checked, missing


def measure(
    subject: Subject, threads: Sequence[int], names: Sequence[str], *, rounds: int, seconds: float
) -> list[Figure]:
    """Prepare the sides, then let them take turns, for each number of threads.

    Args:
        subject: the network and batch.
        threads: numbers of threads.
        names: of sides, the one that ratios refer to first.
        rounds: how often each side has its turn.
        seconds: of a turn.

    Raises:
        HawqError: an integer of ours is wrong, or a side has left its cores.
    """
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checked, missing = alone(prepare, names, subject, folder, on=cores(max(threads)))
        for count in threads:
            times = take_turns(list(checked), subject, folder, cores(count), rounds=rounds, seconds=seconds)
            slower = ratios(times, names[0])
            for name in names:
                cell = (subject.network, subject.batch, count, name)
                if name in missing:
                    figures.append(Figure(*cell, None, None, None, 0, missing[name]))
                    continue
                runs, note = times[name].runs, ", ".join(filter(None, (checked[name], times[name].note)))
                figures.append(Figure(*cell, median(runs), min(runs), slower[name], len(runs), note))
    return figures


def machine_facts() -> dict[str, Any]:
    """Return the CPU, its cores, its load before the run, and the versions of what is compared."""
    from hawq.hardware import present_device

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    device = present_device("llvm")
    versions = {package: version(package) for package in _PACKAGES}
    return {"cpu": str(device), "cores": device.cores, "load": os.getloadavg()[0], "versions": versions}


def _facts_text(facts: dict[str, Any], command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [f"`{command}`", "", f"{facts['cpu']}, {facts['cores']} cores; {versions}."]
    if facts["load"] > _IDLE * facts["cores"]:
        lines.append(
            f"**The machine was busy: load {facts['load']:.1f} before the run. Medians are not to be quoted; "
            "minima are nearer the truth.**"
        )
    return "\n".join(lines)


def _show(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def figures_markdown(figures: Sequence[Figure]) -> str:
    """Return three tables, a line for each network, batch and threads: milliseconds, ratios, and what was checked."""
    sides = list(dict.fromkeys(figure.side for figure in figures))
    cells: dict[tuple[str, int, int], dict[str, Figure]] = {}
    for f in figures:
        cells.setdefault((f.network, f.batch, f.threads), {})[f.side] = f

    def table(show: Callable[[Figure], str]) -> str:
        rows = ([*cell, *(show(found[side]) for side in sides)] for cell, found in cells.items())
        return markdown_table(["network", "batch", "threads", *(SIDES[side].title for side in sides)], rows)

    parts = {
        "Milliseconds per batch, median (minimum)": table(lambda f: f"{_show(f.median_ms)} ({_show(f.min_ms)})"),
        f"Time over that of {SIDES[_REFERENCE].title}": table(lambda f: _show(f.ratio)),
        "What was checked, and the setting that was fastest": table(lambda f: f.note or "-"),
    }
    return "\n\n".join(f"{title}:\n\n{text}" for title, text in parts.items())


_LAYER_HEADER = ("unit", "geometry", "MMAC", "ms", "GMAC/s", "of peak", "ms, uniform4")


def layer_rows(found: Layers) -> Iterator[list[str]]:
    """Yield a line for each unit, then the rest and the whole network."""
    for layer in found.layers:
        figures = [f"{layer.mmacs:.1f}", f"{layer.ms['uniform8']:.3f}", f"{layer.gmacs('uniform8'):.0f}"]
        share = f"{found.share(layer, 'uniform8'):.0%}"
        yield [layer.name, layer.geometry, *figures, share, f"{layer.ms['uniform4']:.3f}"]
    for name, times in (("rest", found.rest), ("whole network", found.whole)):
        yield [name, "", "", f"{times['uniform8']:.3f}", "", "", f"{times['uniform4']:.3f}"]


def _layers(
    subject: Subject, threads: int, seconds: float, facts: dict[str, Any], command: str, page: Path | None
) -> dict[str, Any]:
    from hawq.cli.console import print_table

    found = alone(measure_layers, subject, threads, seconds, on=cores(threads))
    peak = f"peak of a core: {found.peak.gmacs:.0f} GMAC/s ({found.peak.instruction})"
    title = f"{subject.network} at uniform8, batch {subject.batch}, {threads} thread(s); {peak}"
    print_table(title, _LAYER_HEADER, layer_rows(found))
    if page is not None:
        table = markdown_table(_LAYER_HEADER, layer_rows(found))
        write_section(page, f"cpu layers {subject.network}", f"{_facts_text(facts, command)}\n\n{title}.\n\n{table}")
    return {**asdict(subject), **asdict(found)}


def _sides(
    subjects: Sequence[Subject], threads: Sequence[int], names: Sequence[str], rounds: int, seconds: float
) -> list[Figure]:
    from hawq.cli.console import console, print_table

    figures = []
    for subject in subjects:
        console.print(f"{subject.network}, batch {subject.batch}: preparing {', '.join(names)}")
        found = measure(subject, threads, names, rounds=rounds, seconds=seconds)
        for count in threads:
            rows = [
                [SIDES[f.side].title, _show(f.median_ms), _show(f.min_ms), _show(f.ratio, "{:.2f}x"), f.note]
                for f in found
                if f.threads == count
            ]
            title = f"{subject.network}, batch {subject.batch}, {count} thread(s)"
            print_table(title, ["side", "median (ms)", "minimum (ms)", f"of {_REFERENCE}", ""], rows)
        figures += found
    return figures


def benchmark(
    network: Annotated[list[str] | None, typer.Option(help="As for -a; may be repeated. By default all four.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images per call, repeatable: 1 and 8.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Each on a core, repeatable: 1 and 2.")] = None,
    side: Annotated[list[str] | None, typer.Option(help=f"Beside {_REFERENCE}, repeatable: all for this CPU.")] = None,
    repeat: Annotated[int | None, typer.Option(min=1, help="Rounds of turns: 7.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="Of a turn: 0.5; a profile takes eight.")] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Profile our layers, at the first batch and threads.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="ResNet-18, batch 1, 1 thread: under 2 minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights and images.")] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Put the tables into this page as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")] = False,
) -> None:
    """Time ours, torch, ONNX Runtime and OpenVINO in turns, or profile the layers of ours."""
    from hawq.cli.console import print_json

    unknown = [name for name in side or [] if name not in SIDES]
    if unknown:
        raise typer.BadParameter(f"no side {', '.join(unknown)}; allowed are {', '.join(SIDES)}", param_hint="--side")
    usual = _QUICK if quick else _FULL
    repeat, seconds = repeat or usual.repeat, seconds or usual.seconds
    subjects = [Subject(n, b, seed) for n in network or usual.networks for b in batch or usual.batches]
    counts = threads or usual.threads
    choices = {"network": network, "batch": batch, "threads": threads, "side": side, "layers": layers and [layers]}
    words = [f"--{name} {value}" for name, given in choices.items() for value in given or ()]
    command = " ".join(["python benchmarks/cpu.py", *(["--quick"] if quick else []), *words])
    facts = machine_facts()
    document: dict[str, Any] = {**facts, "command": command, "repeat": repeat, "seconds": seconds}
    if layers:
        subject = Subject(layers, (batch or usual.batches)[0], seed)
        document["layers"] = _layers(subject, counts[0], 8 * seconds, facts, command, markdown)
    else:
        asked = side or [name for name, found in SIDES.items() if found.usual]
        names = [name for name in SIDES if name == _REFERENCE or name in asked]
        figures = _sides(subjects, counts, names, repeat, seconds)
        document["figures"] = [asdict(figure) for figure in figures]
        if markdown is not None:
            write_section(markdown, "cpu", f"{_facts_text(facts, command)}\n\n{figures_markdown(figures)}")
    if as_json:
        print_json(document)


if __name__ == "__main__":
    typer.run(benchmark)
