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
from typing import Any

import torch
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


def _brevitas(model: nn.Module, batches: Sequence[Tensor], weight_bits: int, bits: int) -> Network:
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.quantize import preprocess_for_quantize, quantize

    plain = preprocess_for_quantize(_without_hooks(model), relu6_to_relu=False, equalize_iters=20)
    quantized = quantize(plain, **_brevitas_modules(plain, weight_bits, bits)).eval()
    _widen_ends(quantized)
    with torch.no_grad():
        for mode in (calibration_mode, bias_correction_mode):
            with mode(quantized):
                for batch in batches:
                    quantized(batch)
    return torch.no_grad()(quantized)


def _brevitas_modules(model: nn.Module, weight_bits: int, bits: int) -> dict[str, Any]:
    """Return which module takes the place of which, the weights of the first and last layers at 8 bits as ours are."""
    import brevitas.nn as qnn
    from brevitas.nn.quant_layer import QuantNonLinearActLayer
    from brevitas.quant import scaled_int

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    pinned = (layers[0], layers[-1])
    layer = {
        "weight_quant": scaled_int.Int8WeightPerChannelFloatMSE,
        "weight_bit_width": lambda module: 8 if module in pinned else weight_bits,
        "bias_quant": None,  # 32-bit codes lose the biases of dead channels, whose weights' scale is almost zero
        "return_quant_tensor": False,
    }
    signed, unsigned = (
        {"act_quant": kind.let(bit_width=bits), "return_quant_tensor": True}
        for kind in (scaled_int.Int8ActPerTensorFloatMSE, scaled_int.Uint8ActPerTensorFloatMSE)
    )
    relu6 = {"act_impl": _ReLU6, "passthrough_act": False, "input_quant": None}
    return {
        "compute_layer_map": {nn.Conv2d: (qnn.QuantConv2d, layer), nn.Linear: (qnn.QuantLinear, layer)},
        "quant_act_map": {nn.ReLU: (qnn.QuantReLU, unsigned), nn.ReLU6: (QuantNonLinearActLayer, unsigned | relu6)},
        "quant_identity_map": {"signed": (qnn.QuantIdentity, signed), "unsigned": (qnn.QuantIdentity, unsigned)},
    }


def _widen_ends(model: Any) -> None:
    """Give what the first and the last layer read 8 bits, and leave the logits as they are, as ours are."""
    from brevitas.core.bit_width import BitWidthConst
    from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear
    from brevitas.nn.quant_layer import QuantNonLinearActLayer

    modules = {node: model.get_submodule(node.target) for node in model.graph.nodes if node.op == "call_module"}
    layers = [node for node, module in modules.items() if isinstance(module, QuantConv2d | QuantLinear)]
    for node in (layers[0], layers[-1]):
        while (node := node.all_input_nodes[0]).op != "placeholder":
            module = modules.get(node)
            if isinstance(module, QuantNonLinearActLayer):
                module.act_quant.fused_activation_quant_proxy.tensor_quant.msb_clamp_bit_width_impl = BitWidthConst(8)
                if not isinstance(module, QuantIdentity):
                    break
    node = list(model.graph.nodes)[-1]
    while (node := node.all_input_nodes[0]) is not layers[-1]:
        if isinstance(modules.get(node), QuantIdentity):
            model.set_submodule(node.target, nn.Identity())


class _ReLU6(nn.Module):
    """Is nn.ReLU6 to all but Brevitas, which drops that one's bounds: another network."""

    def __init__(self) -> None:  # Brevitas reads the arguments from it
        super().__init__()

    def forward(self, images: Tensor) -> Tensor:
        return images.clamp(0, 6)


class _Hooked(nn.Module):
    """Calls the hooks in front of a module itself, so that torch.fx sees what they do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._before = list(inner._forward_pre_hooks.values())
        inner._forward_pre_hooks.clear()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        for hook in self._before:
            (images,) = hook(self.inner, (images,))
        return self.inner(images)


def _without_hooks(model: nn.Module) -> nn.Module:
    """Return the model with hooks in front of its parts made parts: torch.fx drops the former with what it replaces."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child._forward_pre_hooks:
                setattr(parent, name, _Hooked(child))
    return model


for _weight_bits, _bits in ((8, 8), (4, 8), (4, 4)):
    _scheme = f"W{_weight_bits}A{_bits}"
    _add(
        f"brevitas-{_scheme.lower()}", "Brevitas", _scheme,
        "graph mode after 20 rounds of cross-layer equalization (not across ReLU6); convolutions, linear layers and "
        "sums, first and last layers at 8 bits; weights per channel, activations per tensor, both symmetric, by least "
        "squares; bias correction, float bias; simulated",
        partial(_brevitas, weight_bits=_weight_bits, bits=_bits),
    )  # fmt: skip
