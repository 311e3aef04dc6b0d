"""Measure how long a library takes for one batch."""

import time
from collections.abc import Callable
from typing import Any

import torch

from hawq.runtime.latency import Latency, summary

__all__ = ["Latency", "measure", "sample", "summary"]


def measure(call: Callable[[], Any], *, seconds: float = 1.0, warmup: int = 5, most: int = 1000) -> Latency:
    """Call a function until the time is up and return its latency.

    Args:
        call: runs one batch; work on a GPU is waited for.
        seconds: to spend, after the warm-up.
        warmup: calls that are not counted.
        most: runs at most.
    """
    return summary(sample(call, seconds=seconds, warmup=warmup, most=most))


def sample(call: Callable[[], Any], *, seconds: float, warmup: int = 5, most: int = 1000) -> list[float]:
    """Return the milliseconds of every run; the arguments are those of `measure`."""
    for _ in range(warmup):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < most):
        _synchronize()
        start = time.perf_counter()
        call()
        _synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
