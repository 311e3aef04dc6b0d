"""Quantize networks with real weights without training them, method after method, beside public libraries.

    python benchmarks/ptq.py --data ../shared/data [--network ...] [--row W4A4:mse,brecq ...] [--peer ...] [--json]

Every row has a process of its own, one thread. It quantizes with images that are not tested, compiles the integer
program for this CPU, compares every integer of a few images and the logits of more with the reference executor, and
tests the compiled library. Seconds are CPU time of the quantization alone, gigabytes the most memory of the process.
A peer is given the same network and images and is tested as its library runs it. `W4A4@512x800:mse,brecq` is a row with
512 images and 800 iterations of what is learned. Rows that are in `--keep FILE` are not measured again.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ptq_subjects import SUBJECTS, Subject, scheme_bits
from rich.console import Console
from rich.table import Table
from sections import markdown_table, write_section
from torch import Tensor

DISTILLED = "distilled"
"""Stands in front of methods that are given images made from the network."""

_RANGES = ("minmax", "limits,equalize,minmax", "limits,equalize,minmax,bias-correction")
_FEW = (
    "minmax", "laplace-acts", "laplace-acts,allocate-bits", "aciq",
    "mse", "mse,bias-correction-data", "mse,squant", "quick", "mse,adaround", "mse,brecq",
)  # fmt: skip

ROWS = (
    *(f"W8A8:{methods}" for methods in _RANGES),
    "W8A8:statistics",
    f"W8A8:{DISTILLED},minmax",
    "W8A8:minmax,bias-correction-data",
    *(f"W8A8:per-tensor,{methods}" for methods in _RANGES),
    "W8A8:per-tensor,limits,equalize,statistics,bias-correction",
    f"W8A8:{DISTILLED},per-tensor,limits,equalize,minmax,bias-correction",
    "W8A8:per-tensor,limits,equalize,minmax,bias-correction-data",
    *(f"W4A8:{methods}" for methods in _FEW),
    *(f"W4A4:{methods}" for methods in _FEW),
    "W4A4@512x800:mse,brecq",
)
"""What is measured of every network by default: scheme, then methods in order."""

LOW = ("W2A2:minmax", "W2A2:mse,brecq")
"""Beside them for the networks of CIFAR-10."""

_COMPARED, _TRACED = 16, 2
"""Images whose logits, and whose every tensor, are compared."""


def ours(subject: Subject, scheme: str, methods: str, iterations: int) -> dict[str, Any]:
    """Quantize by methods, prove the compiled library exact and test it."""
    from hawq.ptq import Settings, Workbench, parse_methods
    from tvm_export import export, load, verify

    names = methods.split(",")
    images = _normalised(subject, subject.calibration)
    started, before = time.process_time(), _gigabytes()
    if DISTILLED in names:
        names.remove(DISTILLED)
        images = _distilled(subject)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench.of(
            subject.graph, scheme_bits(scheme, subject.graph), images=lambda: images.split(32), folder=Path(folder),
            image_range=subject.preprocessing.value_range, settings=Settings(iterations=iterations),
        )  # fmt: skip
        program = bench.run(parse_methods(",".join(names))).lower()
        spent = {"seconds": time.process_time() - started, "gigabytes": _gigabytes(), "before": before}
        export(program, "llvm", Path(folder))
        library = load(Path(folder))
        some = _normalised(subject, subject.tests[0].pixels[:_COMPARED])
        reports = [verify(program, library, some), verify(program, library, some[:_TRACED], until="all")]
        for report in reports:
            report.raise_if_failed()
        exact = sum(report.integers for report in reports)
        return {**spent, "exact": exact, "top1": _tested(subject, library.logits)}


def peer(subject: Subject, name: str) -> dict[str, Any]:
    """Quantize by a public library and test what it returns."""
    from ptq_peers import PEERS

    images = _normalised(subject, subject.calibration)
    started, before = time.process_time(), _gigabytes()
    network = PEERS[name].quantize(subject.model, images.split(32))
    spent = {"seconds": time.process_time() - started, "gigabytes": _gigabytes(), "before": before}
    return {**spent, "top1": _tested(subject, network)}


def unquantized(subject: Subject) -> dict[str, Any]:
    """Test the float network."""
    return {"top1": _tested(subject, subject.model)}


@torch.no_grad()
def _tested(subject: Subject, network: Callable[[Tensor], Tensor]) -> dict[str, float]:
    found: dict[str, float] = {}
    last: tuple[Tensor, Tensor] | None = None
    for test in subject.tests:
        if last is None or last[0] is not test.pixels:
            parts = [network(_normalised(subject, chunk)) for chunk in test.pixels.split(50)]
            last = (test.pixels, torch.cat(parts))
        found[test.name] = test.top1(last[1])
    return found


def _normalised(subject: Subject, pixels: Tensor) -> Tensor:
    return subject.preprocessing.normalise(pixels)


def _distilled(subject: Subject) -> Tensor:
    from hawq.distill import QUICK, distill

    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (subject.preprocessing.mean, subject.preprocessing.std))
    return distill(subject.graph, 16, QUICK, batch_size=16, seed=0, bounds=(-mean / std, (1 - mean) / std))


def _gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(network: str, row: str, data: Path, calibration: int, limit: int, iterations: int) -> dict[str, Any]:
    """Return one row of a network; the process it runs in does nothing else."""
    torch.set_num_threads(1)
    scheme, _, what = row.partition(":")
    scheme, images, steps = numbers(scheme)
    calibration, iterations = images or calibration, steps or iterations
    subject = SUBJECTS[network](data, calibration, limit)
    if not what:
        return {"network": network, "row": row, **unquantized(subject)}
    found = peer(subject, what) if scheme == "peer" else ours(subject, scheme, what, iterations)
    return {"network": network, "row": row, **found}


def numbers(scheme: str) -> tuple[str, int | None, int | None]:
    """Return the scheme, the images and the iterations of `W4A4@512x800`; None: it does not tell."""
    name, _, more = scheme.partition("@")
    images, _, iterations = more.partition("x")
    return name, int(images) if images else None, int(iterations) if iterations else None


def shown(found: dict[str, Any]) -> list[str]:
    """Return the cells of a row."""
    scheme, _, methods = found["row"].partition(":")
    scheme, images, iterations = numbers(scheme)
    if "error" in found:
        return [scheme, methods, found["error"]]
    own = [f"{count} {what}" for count, what in ((images, "images"), (iterations, "iterations")) if count]
    named = ", ".join([*methods.split(","), *own])
    cells = [scheme, named, " / ".join(f"{value:.1f}" for value in found["top1"].values())]
    if "seconds" in found:
        cells += [
            f"{found['seconds']:.0f}",
            f"{found['gigabytes']:.1f}",
            f"{found['exact']:,}" if "exact" in found else "",
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--network", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument(
        "--row", nargs="*", help="SCHEME[@IMAGESxITERATIONS]:METHODS; by default all, and LOW for CIFAR-10"
    )
    parser.add_argument("--peer", nargs="*", default=[], help="names in ptq_peers.PEERS")
    parser.add_argument("--calibration", type=int, default=128, help="images; seed 0")
    parser.add_argument("--iterations", type=int, default=400, help="of what adaround and brecq learn")
    parser.add_argument("--limit", type=int, default=600, help="test images of a set at most")
    parser.add_argument("--keep", type=Path, help="JSON lines: rows in it are not measured again, new ones are added")
    parser.add_argument("--quick", action="store_true", help="two rows of ResNet-20, 50 images: under a minute")
    parser.add_argument("--markdown", type=Path, help="put the tables into this page as well")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    if given.quick:
        given.network, given.row, given.limit = ["resnet20_cifar10"], ["W8A8:minmax", "W4A4:mse"], 50
    if not given.data.is_dir():
        parser.exit(2, f"{given.data} does not exist: give the folder of images and weights with --data\n")
    kept = given.keep.read_text().splitlines() if given.keep and given.keep.exists() else []
    found = [json.loads(line) for line in kept]
    known = {(row["network"], row["row"]) for row in found if "error" not in row}
    console = Console(stderr=True, width=150)
    for network in given.network:
        rows = given.row if given.row is not None else [*ROWS, *(LOW if "cifar10" in network else ())]
        for row in ["float", *(f"peer:{name}" for name in given.peer), *rows]:
            if (network, row) in known:
                continue
            console.print(f"{network} {row}")
            result = _alone(network, row, given.data, given.calibration, given.limit, given.iterations)
            found.append(result)
            if given.keep:
                with given.keep.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    tables = {name: [row for row in found if row["network"] == name] for name in given.network}
    header = ["bits", "methods", "top-1 %", "CPU s", "GB", "integers equal"]
    for name, rows in tables.items():
        sets = " / ".join(next((row["top1"] for row in rows if "top1" in row), {}))
        table = Table(*header, title=f"{name}: {sets}")
        cells = [shown(row) for row in rows]
        for line in cells:
            table.add_row(*line)
        console.print(table)
        if given.markdown:
            filled = [line + [""] * (len(header) - len(line)) for line in cells]
            write_section(given.markdown, name, f"{name}: {sets}\n\n{markdown_table(header, filled)}")
    if given.json:
        print(json.dumps(found, indent=1))


def _alone(network: str, row: str, *rest: Any) -> dict[str, Any]:
    """Measure a row in a process of its own; one that fails says so and stops no other."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply(measure, (network, row, *rest))
        except Exception as error:
            return {"network": network, "row": row, "error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    main()
