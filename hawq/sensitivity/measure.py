"""Measure sensitivities once for each network, data and options, and find them again."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from hawq import __version__
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import FloatGraph
from hawq.sensitivity.hutchinson import Probing
from hawq.sensitivity.registry import SENSITIVITIES, Batch, OnProbe
from hawq.sensitivity.result import Sensitivity

__all__ = ["measure", "sensitivity_key"]


def sensitivity_key(method: str, graph: FloatGraph, batches: Sequence[Batch], probing: Probing) -> str:
    """Return the SHA-256 of everything a measurement depends on: method, network, weights, images, labels, options."""
    digest = hashlib.sha256(repr((method, tuple(graph.nodes.values()), graph.output, probing)).encode())
    for name in sorted(graph.tensors):
        digest.update(name.encode())
        _update(digest, graph.tensors[name])
    for images, labels in batches:
        _update(digest, images)
        _update(digest, labels)
    return digest.hexdigest()


def measure(
    method: str,
    graph: FloatGraph,
    batches: Sequence[Batch],
    probing: Probing,
    cache: Path,
    on_probe: OnProbe = lambda probes, error: None,
) -> tuple[Sensitivity, bool]:
    """Return the sensitivities of a network and whether they were read from the cache.

    Args:
        method: registered name.
        graph: the float network.
        batches: images and labels on the network's device.
        probing: how many probes.
        cache: file they are kept in; replaced when it holds another measurement.
        on_probe: follows the progress.

    Raises:
        UsageError: the method is unknown.
    """
    if method not in SENSITIVITIES:
        raise UsageError(f"sensitivity {method!r} is unknown; known are {', '.join(SENSITIVITIES)}")
    key = sensitivity_key(method, graph, batches, probing)
    if cache.is_file():
        try:
            found = Sensitivity.load(cache)
        except HawqError:
            found = None  # a broken cache is no reason to stop: it is measured and written again
        if found is not None and found.key == key:
            return found, True
    measured = SENSITIVITIES[method](graph, batches, probing, on_probe)
    options = {**asdict(probing), "images": sum(len(labels) for _, labels in batches)}
    environment = {"hawq": __version__, "torch": torch.__version__, "device": str(_device(graph))}
    result = Sensitivity(method, key, options, measured.probes, environment, measured.units)
    result.save(cache)
    return result, False


def _update(digest: "hashlib._Hash", tensor: Tensor) -> None:
    digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _device(graph: FloatGraph) -> torch.device:
    return next(iter(graph.tensors.values())).device
