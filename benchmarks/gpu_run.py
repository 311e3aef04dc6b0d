"""Check and time the libraries of benchmarks/gpu.py on a GPU; needs torch and hawq.runtime, not TVM's compiler."""

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu_roofline import Layer, device, limit_us

__all__ = ["Figure", "assign", "missing", "run_all"]

_ROUNDS = 5
"""Turns of every side; the median counts, so that a clock that drops slows all alike."""

_PROFILED = 5
"""Calls in which kernels are timed one by one."""


@dataclass(frozen=True)
class Figure:
    """One library.

    Attributes:
        network: its name.
        scheme: of bits.
        batch: images per call.
        exact: whether every integer logit was equal to the reference's.
        device: the GPU's name.
        ms: median milliseconds of a call, by side; the image lies on the device.
        limit_ms: what the layers take at least by the roofline of the device, None where its peaks are unknown.
        layers: of each layer name, microseconds and the share of its roofline.
    """

    network: str
    scheme: str
    batch: int
    exact: bool
    device: str
    ms: dict[str, float]
    limit_ms: float | None
    layers: list[tuple[str, float, float | None]]


def missing() -> str | None:
    """Return in one line why nothing can be measured here, None where it can."""
    try:
        import torch
    except ImportError:
        return "needs torch, for the peers and the clock: pip install torch"
    return (
        None if torch.cuda.is_available() else "no NVIDIA GPU here; take the exported folder to a machine that has one"
    )


def _milliseconds(side: Callable[[], Any], seconds: float) -> float:
    """Return how long a call takes, over as many as fill the time."""
    import torch

    def timed(calls: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            side()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    once = timed(3)
    return 1e3 * timed(max(3, int(seconds / _ROUNDS / max(once, 1e-6))))


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    import torch

    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = allowed
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def _peers(network: str, images: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return torch's ways to run a network of the same shape."""
    import torch

    from hawq.models import create_model

    torch.backends.cudnn.benchmark = True
    x = torch.from_numpy(images).cuda()
    plain = create_model(network).eval().cuda()
    half = create_model(network).eval().cuda().half().to(memory_format=torch.channels_last)
    x_half = x.half().to(memory_format=torch.channels_last)
    compiled = torch.compile(half, mode="max-autotune")  # which records a CUDA graph

    def float32(allowed: bool) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), _tf32(allowed):
                return plain(x)

        return call

    def float16() -> Any:
        with torch.no_grad():
            return compiled(x_half)

    for _ in range(3):
        float16()
    return {"torch float32": float32(False), "torch TF32": float32(True), "torch float16, compiled": float16}


def assign(layers: Sequence[Layer], kernels: Sequence[float]) -> dict[str, float]:
    """Return the time of a call by layer, from the times of the kernels of some calls in the order of their launch.

    Raises:
        ValueError: the kernels are not those of whole calls.
    """
    owners = [layer.name for layer in layers for _ in range(layer.kernels)]
    if not kernels or len(kernels) % len(owners):
        raise ValueError(f"{len(kernels)} kernels ran, and a call has {len(owners)}")
    totals: dict[str, float] = defaultdict(float)
    for index, time_us in enumerate(kernels):
        totals[owners[index % len(owners)]] += time_us * len(owners) / len(kernels)
    return dict(totals)


def _kernel_times(call: Callable[[], Any]) -> list[float]:
    """Return the microseconds of every kernel of some calls, in the order of their start."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(_PROFILED):
            call()
        torch.cuda.synchronize()
    events = [event for event in record.events() if event.name.endswith("_kernel") or "_kernel_" in event.name]
    return [event.time_range.elapsed_us() for event in sorted(events, key=lambda event: event.time_range.start)]


def _measure(folder: Path, seconds: float, peers: bool) -> Figure:
    import torch

    from hawq.runtime.library import open_library

    about, expected = json.loads((folder / "benchmark.json").read_text()), np.load(folder / "expected.npz")
    layers = [Layer(**layer) for layer in about["layers"]]
    repeats = -(-about["batch"] // len(expected["images"]))
    images, logits = (np.concatenate([expected[name]] * repeats)[: about["batch"]] for name in ("images", "logits"))
    library = open_library(folder)
    # twice, for a CUDA graph is replayed from the second call on
    exact = all(np.array_equal(library.run_batch(images), logits) for _ in range(2))

    call = library.runner(images)
    sides = {f"hawq, {about['scheme']}": call, **(_peers(about["network"], images) if peers else {})}
    rounds = [{name: _milliseconds(side, seconds) for name, side in sides.items()} for _ in range(_ROUNDS)]
    ms = {name: statistics.median(turn[name] for turn in rounds) for name in sides}

    name = torch.cuda.get_device_name()
    peaks = device(name)
    limits = {layer.name: limit_us(layer, peaks) for layer in layers} if peaks else {}
    times = assign(layers, _kernel_times(call))
    shares = [(layer, spent, limits[layer] / spent if limits else None) for layer, spent in times.items()]
    total = sum(limits.values()) / 1e3 if limits else None
    return Figure(about["network"], about["scheme"], about["batch"], exact, name, ms, total,
                  sorted(shares, key=lambda row: -row[1]))  # fmt: skip


def _show(figure: Figure, layers: int) -> None:
    ours = next(iter(figure.ms.values()))
    verdict = "every logit equal" if figure.exact else "LOGITS DIFFER"
    print(f"\n{figure.network}, {figure.scheme}, batch {figure.batch}, {figure.device}: {verdict}")
    for side, ms in figure.ms.items():
        print(f"  {side:26} {ms:9.3f} ms  {ms / ours:6.2f}x")
    if figure.limit_ms is not None:
        print(f"  {'roofline of its layers':26} {figure.limit_ms:9.3f} ms  {figure.limit_ms / ours:6.1%} reached")
    for name, spent, share in figure.layers[:layers]:
        print(f"    {name:40} {spent:9.1f} us  {'' if share is None else f'{share:6.1%} of its roofline'}")


def run_all(folder: Path, seconds: float, *, peers: bool, layers: int) -> list[Figure]:
    """Check and time every library under a folder, and print what came out.

    Args:
        folder: what `export_all` wrote.
        seconds: to spend on each side of each library.
        peers: time torch as well.
        layers: slowest layers to print.
    """
    figures = []
    for place in sorted(path.parent for path in folder.glob("*/benchmark.json")):
        figures.append(_measure(place, seconds, peers))
        _show(figures[-1], layers)
    return figures
