"""What cannot be quantized is refused with the op, the module, the line and what to do."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tracing import Run

from hawq.errors import HawqError
from hawq.graph.trace import trace

SHAPE = (4, 8, 8)


def refused(model, *words, shape=SHAPE):
    """Return the message; it holds every word."""
    with pytest.raises(HawqError) as caught:
        trace(model, shape)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


class Squeeze(nn.Module):
    def forward(self, x):
        return torch.exp(x)


def test_an_unknown_op_names_op_module_line_and_what_is_supported():
    line = inspect.getsourcelines(Squeeze.forward)[1] + 1
    message = refused(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(Squeeze())),
        "exp in module '1.0'", f"{__file__}:{line}", "not supported", "conv2d", "Replace it",
    )  # fmt: skip
    assert "_" not in message.split("supported are ")[1].split(".")[0].split(", ")


def test_an_unknown_op_of_a_library_module_gives_a_line_all_the_same():
    refused(nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU()), "leaky_relu in module '1'", "activation.py:")


UNSUPPORTED = {
    "scaled activation": (lambda m, x: m.conv(x) * 0.5, "x * 0.5 + 0 of an activation"),
    "hard sigmoid of other numbers": (lambda m, x: F.relu6(m.conv(x) + 2) / 6, "x * 1 + 2 of an activation"),
    "division by a tensor": (lambda m, x: x / m.conv(x), "divides by a tensor"),
    "in-place product as a statement": (lambda m, x: (x.mul_(2), m.conv(x))[1], "mul_"),
    "product with a map of one channel": (lambda m, x: x * x[:, :1], "getitem"),
    "broadcast product": (lambda m, x: x * F.avg_pool2d(x, (8, 1)), "(N, C, H, W) times (N, C, 1, 1)"),
    "slice": (lambda m, x: m.conv(x)[:, ::2], "getitem"),
    "transpose": (lambda m, x: x.transpose(2, 3), "transpose"),
    "transposed convolution": (lambda m, x: F.conv_transpose2d(x, m.conv.weight), "conv_transpose2d"),
    "layer norm": (lambda m, x: F.layer_norm(x, x.shape[1:]), "layer_norm"),
    "sum with a number": (lambda m, x: m.conv(x) + 1, "x * 1 + 1 of an activation"),
    "scaled sum": (lambda m, x: torch.add(x, m.conv(x), alpha=2), "alpha=2"),
    "broadcast sum": (lambda m, x: x + x.mean((2, 3), keepdim=True), "broadcasting"),
    "concat of rows": (lambda m, x: torch.cat([x, x], 2), "dimension 2"),
    "leaky clamp": (lambda m, x: F.hardtanh(x), "[-1.0, 1.0]"),
    "clamp to a tensor": (lambda m, x: x.clamp(m.conv(x)), "clamps to tensors"),
    "bicubic resizing": (lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic"), "mode 'bicubic'"),
    "resizing with a filter": (lambda m, x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True), "antialias"),
    "reflection": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "reflect"),
    "padding with ones": (lambda m, x: m.conv(F.pad(x, (1, 1), value=1.0)), "value 1.0"),
    "cropping": (lambda m, x: m.conv(F.pad(x, (-1, 0))), "by 0 or more"),
    "padded channels": (lambda m, x: F.pad(x, (0, 0, 0, 0, 2, 2)), "only rows and columns"),
    "indices": (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], "indices"),
    "uneven adaptive pool": (lambda m, x: F.adaptive_avg_pool2d(x, 3), "does not divide"),
    "mean of channels": (lambda m, x: x.mean(1), "over (2, 3)"),
    "batch in a flatten": (lambda m, x: x.reshape(-1), "batch"),
    "batch of one by hand": (lambda m, x: x.reshape(1, -1), "batch"),
    "regrouped channels": (lambda m, x: m.conv(x.view(x.size(0), 4, 4, 16)), "only a flatten"),
    "dropout that stays on": (lambda m, x: F.dropout(m.conv(x), 0.5), "training=self.training"),
    "change of type": (lambda m, x: x.double(), "double"),
    "conversion": (lambda m, x: x.to(torch.float64), "changes the type"),
    "linear over pixels": (lambda m, x: m.fc(x), "flatten it"),
    "computed weights": (lambda m, x: F.conv2d(x, F.relu(m.conv.weight)), "relu"),
    "batch statistics": (lambda m, x: F.batch_norm(x, None, None, training=True), "running statistics"),
    "tensor made in forward": (lambda m, x: x + torch.ones(1), "neither a parameter nor a buffer"),
    "parameter as activation": (lambda m, x: F.relu(m.conv.bias), "'conv.bias'"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_use(case):
    call, words = UNSUPPORTED[case]
    refused(Run(call, conv=nn.Conv2d(4, 4, 1), fc=nn.Linear(8, 2)), words, f"{__file__}:")


def branch_on_values(m, x):
    return x if x.sum() > 0 else m.conv(x)


@pytest.mark.parametrize(
    "call",
    [
        branch_on_values,
        lambda m, x: m.conv(x) if x.max().item() > 0 else x,
        lambda m, x: F.avg_pool2d(x, int(x.max())),
        lambda m, x: F.hardtanh(x, 0, float(x.max())),
        lambda m, x: [m.conv(x), x][x.argmax()],
    ],
)
def test_control_flow_by_values(call):
    refused(
        Run(call, conv=nn.Conv2d(4, 4, 1)), "depends on the values of a tensor", f"{__file__}:", "outside the model"
    )


def test_a_layer_used_twice():
    model = Run(lambda m, x: m.conv(m.conv(x)), conv=nn.Conv2d(4, 4, 1))
    refused(model, "'conv.weight' is used a second time", "first by conv2d in module 'conv'", "own module")
    tied = Run(lambda m, x: m.b(m.a(x)), a=nn.Conv2d(4, 4, 1, bias=False), b=nn.Conv2d(4, 4, 1, bias=False))
    tied.b.weight = tied.a.weight
    refused(tied, "conv2d in module 'b'", "'a.weight' is used a second time")
    refused(Run(lambda m, x: m.bn(m.bn(x)), bn=nn.BatchNorm2d(4)), "shared layers")


def test_modules_in_a_plain_list():
    hidden = [nn.Conv2d(4, 4, 1)]
    refused(Run(lambda m, x: hidden[0](x)), "nn.ModuleList")


def test_an_input_the_model_cannot_take():
    refused(nn.Sequential(nn.Conv2d(3, 4, 1)), "conv2d in module '0'", "(4, 8, 8)", "channels")
    refused(Run(lambda m, x: m.fc(x.flatten(1)), fc=nn.Linear(9, 2)), "linear in module 'fc'", "check the input size")


def test_outputs_that_are_not_computed():
    refused(Run(lambda m, x: None), "returns NoneType, not a tensor that it computed")
    refused(Run(lambda m, x: {"map": (m.conv(x), 3)}, conv=nn.Conv2d(4, 4, 1)), "returns int as its output 'map.1'")
    refused(Run(lambda m, x: m.conv.weight, conv=nn.Conv2d(4, 4, 1)), "not a tensor that it computed")
    refused(Run(lambda m, x: ()), "no tensor at all")


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def test_more_than_one_input_and_errors_of_the_model_itself():
    refused(TwoInputs(), "TypeError", "one image batch")

    def broken(m, x):
        return {}["no such key"]

    line = inspect.getsourcelines(broken)[1] + 1
    refused(Run(broken), "KeyError", f"{__file__}:{line}")


def test_further_arguments_keep_their_defaults():
    class Masked(nn.Module):
        def forward(self, x, mask=None):
            return F.relu(x) if mask is None else x * mask

    assert list(trace(Masked(), SHAPE).nodes) == ["input", "relu"]


@pytest.mark.parametrize("fails", [False, True])
def test_training_flags_survive(fails):
    model = Run(partial(lambda fails, m, x: torch.exp(x) if fails else x.relu(), fails), drop=nn.Dropout())
    model.drop.eval()
    if fails:
        refused(model, "exp")
    else:
        trace(model, SHAPE)
    assert model.training
    assert not model.drop.training
