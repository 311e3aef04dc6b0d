"""Compile the libraries of benchmarks/gpu.py, with images and the integer logits that must come out."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cpu_ours import scheme_of
from gpu_roofline import Layer

from hawq.graph.trace import trace
from hawq.integer import IntegerProgram, ReferenceExecutor
from hawq.integer import ops as o
from hawq.models import create_model, input_spec
from hawq.qat.model import QuantizedModel
from tvm_export import export
from tvm_export.backend import backend
from tvm_export.cuda.conv_mma import MmaConv, suits
from tvm_export.definitions import Site
from tvm_export.lower import sites

__all__ = ["export_all", "layers"]

_SIZE = 224
_IMAGES = 2
"""Different images; larger batches repeat them."""


def _macs(site: Site) -> int:
    """Return the products of an op that multiplies weights, 0 of another."""
    if not isinstance(site.op, o.Conv2d | o.Linear):
        return 0
    weight = site.constants["weight"]
    return int(site.batch * math.prod(site.out.chw[1:]) * weight.size)


def _moved(site: Site, constants: Sequence[np.ndarray]) -> int:
    """Return the bytes of the stored tensors read and written, each once, and of constants; an image is float32."""
    tensors = (dict(site.reads) | site.written).values()
    stored = sum(math.prod(s.shape(site.batch)) * np.dtype(s.dtype).itemsize for s in tensors)
    image = 0 if site.reads else 4 * site.batch * math.prod(site.out.chw)
    return stored + image + sum(array.nbytes for array in constants)


def layers(program: IntegerProgram, arch: str, batch: int) -> list[Layer]:
    """Return what every op of a program costs, those behind it in its kernel included, in the order of their launch."""
    target = backend("cuda", arch=[arch])
    found = []
    for site in sites(program, target, batch):
        dense = suits(site)
        layer: Any = MmaConv.of(site, [arch]) if dense else None
        kernels = 2 if dense and layer.plan.slices > 1 else 1
        nibbles = bool(dense and layer.nibbles and site.inputs[0].packed)
        found.append(Layer(site.op.name, kernels, _macs(site), _moved(site, target.kernel(site).constants), nibbles))
    return found


def _program(network: str, scheme: str, image: torch.Tensor, seed: int = 0) -> IntegerProgram:
    torch.manual_seed(seed)
    graph = trace(create_model(network).eval(), tuple(image.shape[1:]))
    model = QuantizedModel(graph, scheme_of(scheme, network, graph))
    model.calibrate([image])
    return model.eval().lower()


def export_all(
    folder: Path,
    networks: Sequence[str],
    schemes: Sequence[str],
    batches: Sequence[int],
    arch: str,
    *,
    cuda_graph: bool = False,
) -> None:
    """Compile every library into a folder of its own, `NETWORK-SCHEME-BATCH`.

    Args:
        folder: of them all.
        networks: names of models.
        schemes: of bits.
        batches: images per call.
        arch: GPU architecture.
        cuda_graph: launch a network's kernels as one graph.
    """
    for network in networks:
        size = input_spec(network).size or _SIZE
        images = torch.randn(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
        for scheme in schemes:
            program = _program(network, scheme, images)
            logits = ReferenceExecutor(program)(images)
            for batch in batches:
                place = folder / f"{network}-{scheme}-{batch}"
                export(program, "cuda", place, batch=batch, arch=[arch], cuda_graph=cuda_graph)
                np.savez(place / "expected.npz", images=images.numpy(), logits=logits.numpy())
                costs = [asdict(layer) for layer in layers(program, arch, batch)]
                about = {"network": network, "scheme": scheme, "batch": batch, "layers": costs}
                (place / "benchmark.json").write_text(json.dumps(about, indent=1))
                print(place)
