"""Run a library on image files: what `hawq run` and `python -m hawq.runtime` have in common."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hawq.errors import UsageError
from hawq.files import write_atomically
from hawq.runtime.calls import calls
from hawq.runtime.latency import summary
from hawq.runtime.library import Library, open_library
from hawq.runtime.threads import describe_threads, use_threads

__all__ = ["RunRequest", "describe", "run_images"]

_WARMUP = 3


@dataclass(frozen=True)
class RunRequest:
    """What is to be run.

    Attributes:
        folder: of the library.
        images: image files.
        top: classes to name for each image.
        repeat: timed runs of the first batch, 0 for none.
        threads: CPU threads of the library, None for one a core.
        runtime: folder of TVM's runtime libraries, None to look for them.
        logits: `.npy` file for the integer logits, int32, (N, classes); where there are several outputs, a file in the
            form of `.npz`.
        raw: file for the prepared images as bare bytes, as the C++ example reads them.
    """

    folder: Path
    images: tuple[Path, ...]
    top: int = 5
    repeat: int = 0
    threads: int | None = None
    runtime: Path | None = None
    logits: Path | None = None
    raw: Path | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: one is too small, or there are no images.
        """
        if not self.images or self.top < 1 or self.repeat < 0:
            raise UsageError(
                f"{len(self.images)} images, top {self.top}, repeat {self.repeat}: need at least 1, 1 and 0"
            )


def run_images(request: RunRequest) -> dict[str, Any]:
    """Run a library and return what it found, as JSON types.

    Raises:
        UsageError: a missing file, or no possible number of threads.
        HawqError: a file that cannot be read, or a library that this machine cannot run.
    """
    threads = use_threads(request.threads)
    library = open_library(request.folder, request.runtime)
    prepared: list[np.ndarray] = []
    found: list[dict[str, np.ndarray]] = []
    for part, _ in calls(len(request.images), library.batch, library.most):
        batch = library.prepare(request.images[part])
        found.append(library.integers(batch))
        prepared.append(batch if request.raw or not prepared else batch[:0])  # the first one is timed below
    integers = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if request.logits:
        write_atomically(request.logits, lambda path: _save(path, integers))
    if request.raw:
        write_atomically(request.raw, lambda path: np.concatenate(prepared).tofile(path))
    document = {name: library.manifest[name] for name in ("arch", "scheme", "target", "batch")}
    document["threads"] = threads
    values = library.logits(integers)
    document["images"] = [
        {"file": str(file), **_findings(library, {name: found[index] for name, found in values.items()}, request.top)}
        for index, file in enumerate(request.images)
    ]
    if request.repeat:
        first = np.resize(prepared[0], (library.batch or len(prepared[0]), *prepared[0].shape[1:]))
        document["latency"] = {**asdict(summary(_times(library, first, request.repeat))), "batch": len(first)}
    return document


def describe(document: Mapping[str, Any]) -> list[str]:
    """Return what `run_images` found as lines for people."""
    lines = []
    for image in document["images"]:
        lines.append(image["file"])
        for row in image.get("top", ()):
            lines.append(f"  {row['class']:>5}  {row['logit']:>10.4f}  {row['name'] or ''}".rstrip())
        for name, row in image.get("outputs", {}).items():
            lines.append(f"  {name} {tuple(row['shape'])}: {row['lowest']:.4f} .. {row['highest']:.4f}")
    on = "GPU" if document["target"] == "cuda" else describe_threads(document["threads"])
    lines.append(f"{document['arch']}, {document['scheme']}, {document['target']}: {on}")
    if "latency" in document:
        figures = document["latency"]
        lines.append(
            f"{figures['median_ms']:.3f} ms per batch of {figures['batch']} "
            f"(p10 {figures['p10_ms']:.3f}, p90 {figures['p90_ms']:.3f}, {figures['runs']} runs, copies included)"
        )
    return lines


def _findings(library: Library, values: Mapping[str, np.ndarray], count: int) -> dict[str, Any]:
    """Return the best classes of a classifier, or what other networks put out."""
    first, *others = values.values()
    if first.ndim == 1 and not others:
        return {"top": _ranking(library, first, count)}
    return {
        "outputs": {
            name: {"shape": list(found.shape), "lowest": float(found.min()), "highest": float(found.max())}
            for name, found in values.items()
        }
    }


def _ranking(library: Library, logits: np.ndarray, count: int) -> list[dict[str, Any]]:
    """Return the best classes; equal logits rank by class, as argmax has it."""
    order = np.argsort(-logits, kind="stable")[:count]
    names = library.class_names
    return [{"class": int(i), "name": names[i] if names else None, "logit": float(logits[i])} for i in order]


def _times(library: Library, batch: np.ndarray, runs: int) -> Sequence[float]:
    """Return the milliseconds of every run of one batch."""
    times = []
    for _ in range(_WARMUP + runs):
        start = time.perf_counter()
        library.run_batch(batch)
        times.append((time.perf_counter() - start) * 1e3)
    return times[_WARMUP:]


def _save(path: Path, integers: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name, numpy would add its own suffix
        if len(integers) > 1:
            np.savez(file, **integers)
        else:
            np.save(file, *integers.values())
