"""Whole networks of the libraries: float outputs equal, and as many units as the network has layers."""

import pytest
import torch
import torch.nn.functional as F
from shared_data import shared
from torch import nn
from tracing import assert_same

from hawq.graph.ir import AvgPool2d, Conv2d, Norm
from hawq.models import create_model, load_weights

CASES = [
    ("resnet18", 224, 21),
    ("resnet50", 224, 54),
    ("resnet50b", 224, 54),
    ("inceptionv3", 299, 95),
    ("mobilenetv2_w1", 224, 54),
    ("densenet121", 224, 121),
    ("squeezenet_v1_0", 224, 26),
    ("squeezenet_v1_1", 224, 26),
    ("resnet20_cifar10", 32, 22),
    ("resnet56_cifar10", 32, 58),
    ("preresnet18", 224, 21),
    ("torchvision:resnet18", 64, 21),
    ("torchvision:mobilenet_v2", 64, 53),
    ("torchvision:densenet121", 64, 121),
    ("torchvision:mobilenet_v3_small", 96, 54),
    ("mobilenetv3_small_w1", 224, 54),
    pytest.param("torchvision:efficientnet_b0", 96, 82, marks=pytest.mark.slow),
    pytest.param("resnet101", 224, 105, marks=pytest.mark.slow),
    pytest.param("vgg16", 224, 16, marks=pytest.mark.slow),
    pytest.param("bn_vgg16", 224, 16, marks=pytest.mark.slow),
    pytest.param("torchvision:inception_v3", 299, 95, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("arch", "size", "units"), CASES)
def test_networks_of_the_libraries(arch, size, units):
    torch.manual_seed(0)
    graph = assert_same(create_model(arch), (3, size, size))
    assert len(graph.units) == units
    layers = [m for m in create_model(arch).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(map(graph.weights, graph.units)) == sum(layer.weight.numel() for layer in layers)


def test_densenet_keeps_lone_norms():
    graph = assert_same(create_model("torchvision:densenet121"), (3, 64, 64))
    # stem, and each of the 58 layers' and 3 transitions' second batch norm belong to convolutions; the rest stand alone
    assert sum(isinstance(node.op, Norm) for node in graph.nodes.values()) == 62
    assert sum(isinstance(node.op, Conv2d) and node.op.norm is not None for node in graph.nodes.values()) == 59


def test_inception_excludes_padding_from_its_averages_or_not_as_the_library_does():
    graph = assert_same(create_model("inceptionv3"), (3, 299, 299))
    inner = [n.op for n in graph.nodes.values() if isinstance(n.op, AvgPool2d) and n.op.kernel == (3, 3)]
    assert inner
    assert all(op.counts == 9 for op in inner)


@pytest.mark.parametrize("size", [224, 127])
def test_tensorflow_same_padding(size):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    graph = assert_same(create_model("timm:tf_efficientnet_lite0"), (3, size, size))
    stem = graph.nodes["conv_stem"].op
    assert stem.padding == ((0, 1, 0, 1) if size == 224 else (1, 1, 1, 1))
    assert stem.norm is not None
    assert stem.clamp.hi == 6.0


def tf_same(model: nn.Module) -> nn.Module:
    """Pad as ../shared/data/README.md says: 3x3 stride-2 convolutions at even sizes, in a hook."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
            conv.padding = (0, 0)
            conv.register_forward_pre_hook(lambda module, inputs: (F.pad(inputs[0], (0, 1, 0, 1)),))
    return model


def relu6(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.ReLU6())
    return model


def test_padding_in_hooks_is_folded():
    torch.manual_seed(0)
    graph = assert_same(tf_same(relu6(create_model("mobilenet_w3d4"))), (3, 64 * 3 + 32, 224))
    strided = [n.op for n in graph.nodes.values() if isinstance(n.op, Conv2d) and n.op.stride == (2, 2)]
    assert len(strided) == 5
    assert {op.padding for op in strided} == {(0, 1, 0, 1)}
    assert {op.clamp.hi for op in strided} == {6.0}


@pytest.mark.parametrize(
    ("arch", "file", "change"),
    [
        ("mobilenet_w3d4", "imagenet_mobilenet_v1_075.pth", lambda m: tf_same(relu6(m))),
        ("torchvision:mobilenet_v2", "imagenet_mobilenet_v2_folded_w8pc.pth", tf_same),
        ("resnet20_cifar10", "cifar10_resnet20_pytorchcv.pth", lambda m: m),
    ],
)
def test_published_weights(arch, file, change):
    model = create_model(arch)
    load_weights(model, shared(f"weights/{file}"))
    size = 32 if "cifar10" in arch else 224
    model = change(model).eval()
    graph = assert_same(model, (3, size, size), statistics=None)
    assert len(graph.units) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())


def test_published_weights_of_efficientnet_lite():
    pytest.importorskip("timm")
    state = torch.load(shared("weights/imagenet_efficientnet_lite0.pth"), weights_only=True)
    model = create_model("timm:tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))  # same order, other names
    graph = assert_same(model, (3, 224, 224), statistics=None)
    assert len(graph.units) == 50
