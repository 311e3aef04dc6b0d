"""What stands beside our methods in benchmarks/ptq.py: post-training quantization as public libraries do it.

Every library gets the float network and the calibration images that ours gets, and is set as its authors recommend for
convolutional networks. Nothing is imported before it is used, so a library that is not installed costs its rows only.
"""

import contextlib
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from ptq_brevitas import quantize_by_brevitas
from torch import Tensor, nn

from hawq.errors import UsageError

__all__ = ["PEERS", "Network", "Peer"]

Network = Callable[[Tensor], Tensor]
"""Takes images, float32 (n, 3, height, width), to logits, float32 (n, classes)."""

Quantize = Callable[[nn.Module, Sequence[Tensor]], Network]
"""Takes a float network in evaluation mode and its calibration batches, float32 (n, 3, height, width), to a network."""


@dataclass(frozen=True)
class Peer:
    """One way of one library to quantize a network.

    Attributes:
        name: as `--peer` takes it.
        title: a line of the table.
        scheme: bits of weights and activations, as W4A8.
        note: what is quantized and how, and how the result runs.
        quantize: leaves the network it is given as it is; raises UsageError where a package is missing.
    """

    name: str
    title: str
    scheme: str
    note: str
    quantize: Quantize


PEERS: dict[str, Peer] = {}
"""Every peer by its name."""


def _add(name: str, title: str, scheme: str, note: str, quantize: Quantize) -> None:
    def guarded(model: nn.Module, batches: Sequence[Tensor]) -> Network:
        try:
            return quantize(copy.deepcopy(model), batches)
        except ModuleNotFoundError as error:
            package = (error.name or str(error)).partition(".")[0]
            raise UsageError(
                f"{name} needs the package {package}, which is not installed: `pip install {package}`, or all peers "
                "by `pip install hawq[peers]`"
            ) from error

    PEERS[name] = Peer(name, title, scheme, note, guarded)


def _torch(model: nn.Module, batches: Sequence[Tensor]) -> Network:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    any_batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (batches[0][:2],), dynamic_shapes=any_batch).module()
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    return torch.no_grad()(convert_pt2e(prepared))


_add(
    "torch-pt2e-w8a8", "torch PT2E", "W8A8",
    "torchao's X86InductorQuantizer: convolutions, linear layers and what runs in integers beside them; weights per "
    "channel, symmetric; activations per tensor, asymmetric, from histograms; float bias; simulated",
    _torch,
)  # fmt: skip


def _nncf(model: nn.Module, batches: Sequence[Tensor], fast: bool) -> Network:
    import nncf
    import openvino

    images = torch.cat(list(batches))
    converted = openvino.convert_model(model, example_input=images[:1], input=[-1, *images.shape[1:]])
    with contextlib.redirect_stdout(sys.stderr):
        quantized = nncf.quantize(
            converted, nncf.Dataset(images.split(1), Tensor.numpy), preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images), fast_bias_correction=fast,
        )  # fmt: skip
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(quantized, "CPU", options)
    return lambda batch: torch.from_numpy(compiled(batch.numpy())[0])


_NNCF = (
    "preset mixed on OpenVINO: weights per channel, symmetric; activations asymmetric, per tensor, in front of "
    "depthwise convolutions per channel; {} bias correction, float bias; compiled by OpenVINO"
)
_add("nncf-w8a8", "NNCF", "W8A8", _NNCF.format("layer-by-layer"), partial(_nncf, fast=False))
_add("nncf-w8a8-fast-bias", "NNCF, fast bias correction", "W8A8", _NNCF.format("fast"), partial(_nncf, fast=True))


for _weight_bits, _bits in ((8, 8), (4, 8), (4, 4)):
    _scheme = f"W{_weight_bits}A{_bits}"
    _add(
        f"brevitas-{_scheme.lower()}", "Brevitas", _scheme,
        "graph mode after 20 rounds of cross-layer equalization (not across ReLU6); convolutions, linear layers and "
        "sums, first and last layers at 8 bits; weights per channel, activations per tensor, both symmetric, by least "
        "squares; bias correction, float bias; simulated",
        partial(quantize_by_brevitas, weight_bits=_weight_bits, bits=_bits),
    )  # fmt: skip
