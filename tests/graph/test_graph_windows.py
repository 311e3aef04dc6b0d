"""Explicit padding and divisors give PyTorch's pools exactly, in every mode."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from tracing import Run, assert_same, kinds

from hawq.errors import HawqError
from hawq.graph.functional import average_pool, max_pool
from hawq.graph.ir import Conv2d, MaxPool2d
from hawq.graph.trace import trace
from hawq.graph.windows import even_window, pair

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def pools(draw):
    size, kernel = draw(SIZES), draw(KERNELS)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    options = {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), KERNELS)),
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
    }
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    return size, options


@settings(max_examples=150, deadline=None)
@given(pools(), st.booleans(), st.one_of(st.none(), st.integers(1, 7)))
def test_average_pools(pool, count_include_pad, divisor):
    size, options = pool
    options = {**options, "count_include_pad": count_include_pad, "divisor_override": divisor}
    graph = trace(Run(lambda m, x: F.avg_pool2d(x, **options)), (2, *size))
    node = graph.nodes[graph.output]
    # integers below 2^24 are exact in float64, so only the division rounds: equal to the last bit
    image = torch.randint(-100, 100, (1, 2, *size), generator=torch.Generator().manual_seed(0)).double()
    expected = F.avg_pool2d(image, **options)
    assert node.shape == tuple(expected.shape[1:])
    assert torch.equal(average_pool(image, node.op), expected)


@settings(max_examples=150, deadline=None)
@given(pools(), KERNELS)
def test_max_pools(pool, dilation):
    size, options = pool
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, options["kernel_size"], strict=True)]
    assume(all(s + 2 * p >= r for s, p, r in zip(size, options["padding"], reach, strict=True)))
    options = {**options, "dilation": dilation}
    graph = trace(Run(lambda m, x: F.max_pool2d(x, **options)), (2, *size))
    node = graph.nodes[graph.output]
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    expected = F.max_pool2d(image, **options)
    assert node.shape == tuple(expected.shape[1:])
    assert torch.equal(max_pool(image, node.op), expected)


def test_pairs_and_even_windows():
    assert [pair(3), pair((1, 2)), pair([4])] == [(3, 3), (1, 2), (4, 4)]
    assert even_window((12, 10), (3, 5)) == (4, 2)
    assert even_window((12, 10), (5, 5)) is None


SHAPE = (4, 9, 8)


def test_zeros_go_into_the_convolutions_and_average_pools_that_read_them():
    def call(m, x):
        y = m.pad(F.relu(x))
        return torch.cat([m.a(y), m.b(y), F.avg_pool2d(y, 3, 2)], 1)

    parts = {"a": nn.Conv2d(4, 3, 3, 2), "b": nn.Conv2d(4, 2, 5, 2, padding=1), "pad": nn.ZeroPad2d((0, 1, 2, 0))}
    graph = assert_same(Run(call, **parts), SHAPE)
    assert kinds(graph) == ["Relu", "Conv2d", "Conv2d", "AvgPool2d", "Concat"]
    assert graph.nodes["a"].op.padding == (2, 0, 0, 1)
    assert graph.nodes["b"].op.padding == (3, 1, 1, 2)


def test_pads_add_up():
    model = Run(lambda m, x: m.a(F.pad(F.pad(x, (1, 0)), (0, 1, 2, 0))), a=nn.Conv2d(4, 3, 3))
    op = assert_same(model, SHAPE).nodes["a"].op
    assert isinstance(op, Conv2d)
    assert op.padding == (2, 0, 1, 1)


@pytest.mark.parametrize("options", [{"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_zeros_before_a_max_pool_behind_a_relu(options):
    graph = assert_same(Run(lambda m, x: F.max_pool2d(F.pad(F.relu(x), (0, 1, 0, 1)), **options)), SHAPE)
    assert kinds(graph) == ["Relu", "MaxPool2d"]
    own = options.get("padding", 0)
    assert graph.nodes[graph.output].op == MaxPool2d((3, 3), (2, 2), (own, own + 1, own, own + 1), (1, 1))


def test_minus_infinity_before_any_max_pool():
    graph = assert_same(Run(lambda m, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)), SHAPE)
    assert kinds(graph) == ["MaxPool2d"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: F.max_pool2d(F.pad(x, (0, 1)), 2), "negative values"),
        (lambda m, x: F.max_pool2d(F.pad(x.relu(), (2, 0)), 2), "nothing but padding"),
        (lambda m, x: m.a(F.pad(x, (0, 1), value=-torch.inf)), "takes no padding of -inf"),
        (lambda m, x: F.pad(x, (0, 1)).relu(), "no window"),
        (lambda m, x: F.pad(x, (0, 1)) + F.pad(x, (1, 0)), "no window"),
        (lambda m, x: F.pad(m.a(x), (0, 1)), "returns a padded tensor"),
    ],
)  # fmt: skip
def test_padding_that_nothing_can_take_in(call, words):
    with pytest.raises(HawqError, match="pad in the model's forward") as caught:
        trace(Run(call, a=nn.Conv2d(4, 4, 1)), SHAPE)
    assert words in str(caught.value)
