"""Quantize a network by Brevitas' graph mode, for benchmarks/ptq.py.

Most of this file prepares networks: what Brevitas cannot trace, or changes though nobody asked, takes another form with
the same values first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["quantize_by_brevitas"]


def quantize_by_brevitas(
    model: nn.Module, batches: Sequence[Tensor], weight_bits: int, bits: int
) -> Callable[[Tensor], Tensor]:
    """Return the network that Brevitas' graph mode makes, simulated.

    Args:
        model: float, in evaluation mode; it is changed.
        batches: calibration images, float32 (n, 3, height, width).
        weight_bits: of all but the first and last layer, which have 8.
        bits: of activations, likewise.

    Raises:
        ModuleNotFoundError: Brevitas is not installed.
    """
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
    from brevitas.graph.quantize import preprocess_for_quantize, quantize

    traceable = _with_fixed_padding(_without_hooks(model), batches[0][:1])
    plain = preprocess_for_quantize(traceable, relu6_to_relu=False, equalize_iters=20)
    _drop_assertions(plain)
    quantized = quantize(plain, **_modules(plain, weight_bits, bits)).eval()
    _widen_ends(quantized)
    with torch.no_grad():
        for mode in (calibration_mode, bias_correction_mode):
            with mode(quantized):
                for batch in batches:
                    quantized(batch)
    return torch.no_grad()(quantized)


def _modules(model: nn.Module, weight_bits: int, bits: int) -> dict[str, Any]:
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


def _drop_assertions(model: Any) -> None:
    """Remove what checks shapes: it asks a quantized tensor for attributes that it does not have."""
    for node in list(model.graph.nodes):
        if node.target is torch._assert:
            model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()


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


@torch.no_grad()
def _with_fixed_padding(model: nn.Module, image: Tensor) -> nn.Module:
    """Return the model with convolutions that pad by the size of what they read (timm's) made to pad by a fixed one.

    torch.fx cannot follow a size, and Brevitas would not take a kind of convolution that it does not know for one.
    """
    sizes: dict[str, torch.Size] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d:
            module.register_forward_pre_hook(lambda _, read, name=name: sizes.update({name: read[0].shape[2:]}))
    model(image)
    for name, size in sizes.items():
        module = model.get_submodule(name)
        plain = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, module.stride, 0,
                          module.dilation, module.groups, module.bias is not None)  # fmt: skip
        plain.load_state_dict(module.state_dict())
        geometry = zip(size, module.kernel_size, module.stride, module.dilation, strict=True)
        missing = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in geometry]
        sides = [side for total in reversed(missing) for side in (total // 2, total - total // 2)]
        model.set_submodule(name, nn.Sequential(nn.ZeroPad2d(sides), plain).eval())
    return model
