"""Activations by channel: simulated by the formula, channel by channel, and never taken for integers."""

import pytest
import torch
from benches import bench
from networks import build, images

from hawq.errors import HawqError, UsageError
from hawq.ptq import parse_methods
from hawq.ptq.methods.simulate import ChannelActivation
from hawq.quantizers import ActivationGrid, QuantOptions, activation_quantizer
from hawq.quantizers.density import Density


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(grid, bits, value, widths=torch.full_like):
    quantizer = ChannelActivation(activation_quantizer("minmax")(bits, grid, QuantOptions()), value.shape[1], widths)
    quantizer.calibrating = True
    quantizer(value)
    quantizer.calibrating = False
    return quantizer.eval()


def test_behind_a_relu_every_channel_is_quantized_as_a_tensor_of_its_own():
    value = values(4, 3, 9, 9).relu() * torch.tensor([1.0, 0.01, 30.0]).view(3, 1, 1)
    found = calibrated(ActivationGrid.UNSIGNED, 4, value)(value)
    for channel in range(3):
        alone = activation_quantizer("laplace")(4, ActivationGrid.UNSIGNED, QuantOptions())
        alone.calibrating = True
        torch.testing.assert_close(found[:, channel], alone(value[:, channel]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("grid", ActivationGrid)
def test_bits_are_shared_out_among_channels(grid):
    value = values(8, 4, 9, 9) * torch.tensor([1.0, 1 / 8, 8.0, 0.0]).view(4, 1, 1)
    value = value.relu() if grid is ActivationGrid.UNSIGNED else value
    quantizer = calibrated(grid, 4, value, lambda spread, bits: torch.tensor([4, 2, 6, 0]))
    signed = grid is not ActivationGrid.UNSIGNED
    for channel, bits in enumerate((4, 2, 6, 0)):
        real, found = value[:, channel], quantizer(value)[:, channel]
        top = max(2 ** (bits - signed) - 1, 0)
        if not top:
            assert not bool(found.any())
            continue
        rows = real.flatten() if signed else torch.cat([real[real > 0], -real[real > 0]])
        reach = rows.mean().abs() + Density.LAPLACE.spread(rows[None])[0] * Density.LAPLACE.clip(2 * top + 1)
        scale = torch.minimum(reach, real.abs().max()) / top
        codes = torch.round(real / scale).clamp(-top - 1 if signed else 0, top)
        torch.testing.assert_close(found, codes * scale, rtol=1e-5, atol=1e-7)
        assert len(codes.unique()) > 2 ** (bits - 1)


def test_flattened_maps_have_the_channels_they_had():
    value = values(4, 3, 2, 2).relu()
    quantizer = calibrated(ActivationGrid.UNSIGNED, 4, value)
    assert quantizer(value.flatten(1)).equal(quantizer(value).flatten(1))


@pytest.mark.parametrize("name", ["Residual", "Branches", "Inverted", "Dense"])
def test_sixteen_bits_are_nearly_the_float_network(name):
    image = images(4)
    wanted = build(name)(image).detach()
    errors = {}
    for method in ("naive", "naive,simulate-16"):
        model = bench(name)[0].run(parse_methods(method))
        errors[method] = (model._simulate(image) - wanted).square().mean().sqrt() / wanted.std()
    assert errors["naive,simulate-16"] < errors["naive"] / 100
    with pytest.raises(HawqError, match="weights of 16 bits are a simulation"):
        model.lower()


@pytest.mark.parametrize("method", ["squant", "allocate-bits"])
def test_rounded_weights_do_not_pass_for_sixteen_bits(method):
    with pytest.raises(UsageError, match="needs the float weights"):
        bench()[0].run(parse_methods(f"{method},simulate-16"))


@pytest.mark.parametrize("method", ["simulate-channels", "simulate-bits"])
@pytest.mark.parametrize("name", ["Residual", "Branches", "Inverted", "Dense"])
def test_a_simulation_is_no_program(name, method):
    work, _ = bench(name)
    model = work.run(parse_methods(f"mse,{method}"))
    plain = bench(name)[0].run(parse_methods("mse"))
    assert bool(torch.isfinite(model(images(4))).all())
    assert not model(images(4)).equal(plain(images(4)))
    with pytest.raises(HawqError, match="are a simulation"):
        model.lower()
