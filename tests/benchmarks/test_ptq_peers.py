"""Public libraries quantize the network that they are given and leave it as it is, or say which package is missing."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from networks import build, images
from timm.layers import Conv2dSame
from torch import fx, nn

from hawq.errors import UsageError

NEEDS = {"torch-pt2e": ["torchao"], "nncf": ["nncf", "openvino"], "brevitas": ["brevitas"]}


@pytest.fixture(scope="module")
def peers(scripts):
    return scripts("ptq_peers")


@pytest.fixture(scope="module")
def brevitas(scripts):
    return scripts("ptq_brevitas")


def pad(module, inputs):
    return (F.pad(inputs[0], (0, 1, 0, 1), value=1.0),)


def padded():
    """Return a network whose second convolution is padded by a hook."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2)).eval()
    model[2].register_forward_pre_hook(pad)
    return model


def test_hooks_become_parts_that_a_trace_sees(brevitas):
    model, batch = padded(), images(2)
    expected = model(batch)
    traced = fx.symbolic_trace(brevitas._without_hooks(copy.deepcopy(model)))
    assert not any(module._forward_pre_hooks for module in traced.modules())
    assert torch.equal(traced(batch), expected)


@pytest.mark.parametrize("size", [16, 15])
def test_padding_by_size_becomes_fixed(brevitas, size):
    """An even and an odd size miss different numbers of rows, with stride 2 on both sides or on one."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv2dSame(3, 8, 3, stride=2), Conv2dSame(8, 8, 5, dilation=2, groups=8, bias=False)).eval()
    batch = images(2)[..., :size, : size - 1]
    expected = model(batch)
    fixed = brevitas._with_fixed_padding(copy.deepcopy(model), batch[:1])
    assert torch.equal(fx.symbolic_trace(fixed)(batch), expected)


def test_a_missing_package_is_named(peers, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"nncf-w8a8 needs the package nncf, .*`pip install nncf`"):
        peers.PEERS["nncf-w8a8"].quantize(padded(), [images(2)])


@pytest.mark.parametrize("network", ["Residual", "Inverted"])
@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("torch-pt2e-w8a8", 0.05),
        ("nncf-w8a8", 0.05),
        ("nncf-w8a8-fast-bias", 0.05),
        ("brevitas-w8a8", 0.05),
        ("brevitas-w4a8", 0.2),
        ("brevitas-w4a4", 0.4),
    ],
)
def test_a_peer_quantizes_what_it_is_given(peers, network, name, limit):
    for library, packages in NEEDS.items():
        for package in packages if name.startswith(library) else []:
            pytest.importorskip(package, reason=f"needs {package}, which hawq[peers] installs")
    model, batch = build(network), images(8, 3)
    with torch.no_grad():
        expected = model(batch)
        found = peers.PEERS[name].quantize(model, [images(8, seed) for seed in (1, 2)])(batch)
        assert torch.equal(model(batch), expected)
    assert found.shape == expected.shape
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < limit  # it is quantized, and the same network
