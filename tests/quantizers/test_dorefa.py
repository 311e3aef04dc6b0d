"""DoReFa: levels, gradients of the paper, and the network that is deployed."""

import pytest
import torch
from deployed import check_deployed, fine_tuned, simulation_error

from hawq.errors import UsageError
from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.dorefa import DorefaActivation, DorefaWeight


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("group", [1, 0])
@pytest.mark.parametrize("bits", range(2, 8))
def test_weights_are_those_of_the_paper_times_their_largest_tanh(bits, group):
    weight = values(6, 400) * torch.tensor([1.0, 0.1, 2.0, 1.0, 1.0, 1.0])[:, None]
    quantizer = DorefaWeight(bits, weight, QuantOptions(weight_group=group))
    steps = 2**bits - 1
    bounded = torch.tanh(weight.double())
    top = bounded.abs().amax(1, keepdim=True) if group else bounded.abs().max().expand(6, 1)
    paper = 2 * torch.round((bounded / (2 * top) + 0.5) * steps) / steps - 1
    found = quantizer(weight)
    assert torch.allclose(found.double(), paper * top, rtol=1e-6)  # float32 scales
    codes, scale = quantizer.codes(weight)
    assert codes.equal(torch.round(paper * steps).float())
    assert found.equal(codes * scale[:, None])


@pytest.mark.parametrize("bits", range(2, 8))
def test_integers_of_weights_are_odd(bits):
    weight = torch.linspace(-1, 1, 20_000)[None]
    codes, _ = DorefaWeight(bits, weight, QuantOptions()).codes(weight)
    assert codes.unique().tolist() == list(range(1 - 2**bits, 2**bits, 2))


@pytest.mark.parametrize("group", [1, 0])
def test_one_bit_is_the_sign_times_the_mean_magnitude(group):
    weight = values(3, 50)
    weight[0, 0] = 0.0
    quantizer = DorefaWeight(1, weight, QuantOptions(weight_group=group))
    mean = weight.abs().mean(1, keepdim=True) if group else weight.abs().mean().expand(3, 1)
    assert torch.allclose(quantizer(weight), torch.where(weight >= 0, mean, -mean), rtol=1e-6)  # float32 means
    codes, _ = quantizer.codes(weight)
    assert codes.unique().tolist() == [-1.0, 1.0]
    assert float(codes[0, 0]) == 1
    leaf = weight.clone().requires_grad_()
    quantizer(leaf).backward(values(3, 50, seed=1))
    assert leaf.grad.equal(values(3, 50, seed=1))


def test_gradients_of_weights_are_those_of_the_paper_times_their_largest_tanh():
    weight = values(4, 30).double()
    grad = values(4, 30, seed=1).double()
    leaf = weight.float().requires_grad_()
    DorefaWeight(3, leaf.detach(), QuantOptions())(leaf).backward(grad.float())
    bounded = torch.tanh(weight)
    slope = 1 - bounded**2
    top, where = bounded.abs().max(dim=1, keepdim=True)
    paper = grad * slope / top  # of 2 t = tanh(w) / m, the maximum m held
    through_top = -(grad * bounded).sum(1, keepdim=True) / top**2 * slope.gather(1, where)
    paper.scatter_add_(1, where, through_top * bounded.gather(1, where).sign())
    assert torch.allclose(leaf.grad.double(), paper * top, rtol=1e-4, atol=1e-6)  # float32 against float64


def test_a_dead_channel_stays_small_and_dyadic():
    weight = values(3, 20)
    weight[1] = 0
    codes, scale = DorefaWeight(2, weight, QuantOptions()).codes(weight)
    assert 0 < float(scale[1]) <= 2.0**-15 * float(scale.max())
    assert int(codes[1].abs().max()) == 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_of_activations(bits):
    steps = 2**bits - 1
    positive = DorefaActivation(bits, ActivationGrid.UNSIGNED, QuantOptions())
    assert positive(torch.linspace(-2, 2, 20_000)).unique().equal(torch.arange(steps + 1) * (torch.tensor(1.0) / steps))
    if bits > 1:
        signed = DorefaActivation(bits, ActivationGrid.AFFINE, QuantOptions())
        half = 2 ** (bits - 1)
        levels = torch.arange(-half, half) * (torch.tensor(1.0) / (half - 1))
        assert signed(torch.linspace(-3, 3, 30_000)).unique().equal(levels)


def test_the_gradient_of_activations_is_zero_where_they_are_clipped():
    value = torch.tensor([-0.1, 0.01, 0.4, 0.99, 1.1], requires_grad=True)
    out = DorefaActivation(2, ActivationGrid.UNSIGNED, QuantOptions())(value)
    out.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert value.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


def test_one_bit_needs_a_tensor_that_is_never_negative():
    with pytest.raises(UsageError, match="no 1-bit codes for a tensor with negative values"):
        DorefaActivation(1, ActivationGrid.SYMMETRIC, QuantOptions())


def test_eight_bit_weights_are_refused():
    with pytest.raises(UsageError, match=r"weight quantizer dorefa cannot have 8 bits, allowed are 1\.\.7"):
        fine_tuned("Inverted", 8, 0, weight_quantizer="dorefa")


@pytest.mark.parametrize(("network", "bits"), [("Inverted", 4), ("Inverted", 2), ("Residual", 1)])
def test_what_trained_is_deployed(network, bits, tmp_path):
    model = fine_tuned(network, bits, weight_quantizer="dorefa", act_quantizer="dorefa")
    check_deployed(model, tmp_path)
    assert simulation_error(model) < 0.02
