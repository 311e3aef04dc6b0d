"""LQ-Nets: bases, level tables and their fits."""

import itertools

import pytest
import torch
from deployed import check_deployed, fine_tuned

from hawq.quantizers import ActivationGrid, QuantOptions
from hawq.quantizers.lq_nets import LqNetsActivation, LqNetsWeight, code_vectors, fit_basis

GRIDS = [ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC]


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(bits, grid, *batches):
    quantizer = LqNetsActivation(bits, grid, QuantOptions())
    quantizer.calibrating = True
    for batch in batches:
        quantizer(batch)
    quantizer.calibrating = False
    return quantizer.eval()


def sums(basis, digits):
    """Return all e . v in rising order, with entries of e from `digits`."""
    return sorted(
        sum(d * v for d, v in zip(e, basis, strict=True)) for e in itertools.product(digits, repeat=len(basis))
    )


@pytest.mark.parametrize("basis", [[0.8], [0.3, 0.7], [0.2, 0.9, 0.45], [1.0, 0.3, 2.2, 0.55]])
@pytest.mark.parametrize("grid", GRIDS)
def test_levels_are_sums_of_the_basis_on_a_fine_scale(basis, grid):
    quantizer = calibrated(len(basis), grid, values(4, 40))
    quantizer.basis.copy_(torch.tensor(basis))
    top, digits = (127, (-1, 1)) if grid.signed else (255, (0, 1))
    levels = quantizer.levels()
    assert levels.scale == pytest.approx(sum(basis) / top, rel=1e-6)
    assert levels.codes.tolist() == [round(level / (sum(basis) / top)) for level in sums(basis, digits)]
    assert levels.codes[-1] == top
    middles = [(a + b) / 2 * levels.scale for a, b in itertools.pairwise(levels.codes.tolist())]
    assert levels.thresholds.tolist() == pytest.approx(middles, rel=1e-6)
    kind = quantizer.tensor_type((40,))
    assert (kind.bits, kind.signed, kind.zero_point) == (8, grid.signed, 0)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", GRIDS)
def test_training_gives_every_value_the_level_that_is_deployed(bits, grid):
    quantizer = calibrated(bits, grid, values(8, 60))
    levels = quantizer.levels()
    at = levels.thresholds.float()
    value = torch.cat([at, at.nextafter(torch.tensor(-9e9)), at.nextafter(torch.tensor(9e9)), values(500) * 3])
    codes = torch.tensor([levels.code_of(v) for v in value.tolist()])
    assert quantizer(value).equal(codes.float() * quantizer.step())


@pytest.mark.parametrize("grid", GRIDS)
def test_equal_levels_are_one(grid):
    quantizer = calibrated(3, grid, values(4, 40))
    quantizer.basis.copy_(torch.tensor([0.2, 0.2, 0.6]))
    expected = [-127, -76, -25, 25, 76, 127] if grid.signed else [0, 51, 102, 153, 204, 255]
    assert quantizer.levels().codes.tolist() == expected
    zero = calibrated(2, grid, torch.zeros(4, 40))
    assert zero.levels().scale > 0


@pytest.mark.parametrize("grid", GRIDS)
def test_gradients_pass_up_to_the_outer_levels(grid):
    quantizer = calibrated(2, grid, values(4, 40))
    quantizer.basis.copy_(torch.tensor([1.0, 2.0]))
    value = torch.tensor([-9.0, -2.9, -0.1, 0.1, 2.9, 3.1], requires_grad=True)
    quantizer(value).backward(torch.arange(1.0, 7.0))
    assert value.grad.tolist() == ([0.0, 2.0, 3.0, 4.0, 5.0, 0.0] if grid.signed else [0.0, 0.0, 0.0, 4.0, 5.0, 0.0])


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_a_fit_is_the_least_squares_solution(bits):
    """Where every level has values, the pull towards the old basis is a part in ten thousand."""
    vectors, top = code_vectors(bits, signed=True), 127
    basis = torch.tensor([[0.3, 0.7, 1.5][:bits], [1.1, 0.4, 0.2][:bits]])
    rows = values(2, 3000)
    found = fit_basis(rows, basis, vectors, top)
    for row, old, new in zip(rows.double(), basis.double(), found.double(), strict=True):
        levels = vectors.double() @ old
        chosen = vectors.double()[(row[:, None] - levels).abs().argmin(1)]
        expected = torch.linalg.lstsq(chosen, row[:, None]).solution[:, 0]
        # a table of 127 steps moves thresholds by half a step, so a percent of the values has another code
        assert torch.allclose(new, expected, rtol=2e-2, atol=2e-3)


def test_a_basis_number_that_no_value_tells_about_stays():
    """With all values at the top level only the sum is known; the pull keeps the difference."""
    vectors = code_vectors(2, signed=False)
    found = fit_basis(torch.full((1, 100), 9.0), torch.tensor([[1.0, 3.0]]), vectors, 255)
    assert float(found.sum()) == pytest.approx(9.0, rel=1e-3)
    assert float(found[0, 1] - found[0, 0]) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_alternating_fits_never_lose(bits):
    rows, vectors = values(3, 2000).abs(), code_vectors(bits, signed=False)
    basis, errors = torch.tensor([0.2, 0.4, 0.8, 1.6])[:bits].repeat(3, 1), []
    for _ in range(6):
        nearest = (basis @ vectors.T)[:, None, :]
        errors.append((rows[..., None] - nearest).abs().amin(-1).square().mean(1))
        basis = fit_basis(rows, basis, vectors, 255)
    # a level on the table is off by up to half of its 255 steps, which a fit may lose again
    assert all(bool((b <= a * 1.001).all()) for a, b in itertools.pairwise(errors))
    assert bool((errors[-1] < errors[0]).all())


def test_one_bit_is_the_mean_magnitude():
    """The least-squares basis of signs is mean |w|: XNOR's."""
    weight = values(4, 300)
    quantizer = LqNetsWeight(1, weight, QuantOptions())
    assert torch.allclose(quantizer.basis[:, 0], weight.abs().mean(1), rtol=1e-3)  # the pull
    assert quantizer.codes(weight)[0].abs().unique().tolist() == [127.0]


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_start_errs_less_than_evenly_spaced_levels(bits):
    weight = values(3, 1000)
    quantizer = LqNetsWeight(bits, weight, QuantOptions()).eval()
    error = (quantizer(weight) - weight).square().mean(1)
    steps = [k * 0.02 for k in range(1, 150)]
    for step in steps:  # the best midrise quantizer
        top = 2**bits - 1
        even = (2 * ((weight / step + top) / 2).round() - top).clamp(-top, top) * step
        assert bool((error <= (even - weight).square().mean(1) * 1.02).all()), step


def test_a_training_step_moves_the_basis_a_tenth_of_the_way():
    weight = values(4, 50)
    quantizer = LqNetsWeight(2, weight, QuantOptions())
    moved, before = (weight * 3).requires_grad_(), quantizer.basis.clone()
    out = quantizer(moved)
    wanted = before.lerp(fit_basis(moved.detach(), before, code_vectors(2, signed=True), 127), 0.1)
    assert quantizer.basis.equal(wanted)
    codes, scale = quantizer.codes(moved)  # without gradients nothing moves
    assert quantizer.basis.equal(wanted)
    assert out.equal(codes * scale[:, None])
    out.backward(values(4, 50, seed=1))
    assert moved.grad.equal(values(4, 50, seed=1))
    quantizer.eval()(moved)
    assert quantizer.basis.equal(wanted)


def test_an_activation_follows_its_batches_and_a_calibration_is_a_mean():
    batches = [values(4, 50, seed=s).relu() * (s + 1) for s in range(3)]
    single = [calibrated(2, ActivationGrid.UNSIGNED, batch).basis for batch in batches]
    quantizer = calibrated(2, ActivationGrid.UNSIGNED, *batches)
    assert torch.allclose(quantizer.basis, torch.stack(single).mean(0), rtol=1e-5)
    before = quantizer.basis.clone()
    quantizer(batches[2])
    assert quantizer.basis.equal(before)
    quantizer.train()(batches[2])
    fitted = fit_basis(batches[2].reshape(1, -1), before[None], code_vectors(2, signed=False), 255)[0]
    assert quantizer.basis.equal(before.lerp(fitted, 0.1))


def test_bases_are_kept_in_the_state():
    state = LqNetsWeight(3, values(4, 50), QuantOptions()).state_dict()
    assert list(state) == ["basis"]
    assert state["basis"].shape == (4, 3)
    shared = LqNetsWeight(3, values(4, 50), QuantOptions(weight_group=0))
    assert shared.basis.shape == (1, 3)
    assert shared.scale(values(4, 50)).shape == (4,)
    assert "basis" in LqNetsActivation(3, ActivationGrid.UNSIGNED, QuantOptions()).state_dict()


def test_a_dead_channel_has_a_positive_scale():
    weight = values(3, 30)
    weight[1] = 0
    quantizer = LqNetsWeight(2, weight, QuantOptions())
    codes, scale = quantizer.codes(weight)
    assert bool((scale > 0).all())
    assert float((codes[1] * scale[1]).abs().max()) < 2e-4 * float(weight.abs().max())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_what_trained_is_deployed(bits, tmp_path):
    model = fine_tuned("Inverted", bits, weight_quantizer="lq-nets", act_quantizer="lq-nets")
    check_deployed(model, tmp_path)
