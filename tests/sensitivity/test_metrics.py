"""Every metric against a plain computation of its formula."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_graph import batches, build, reference

from hawq.bitconfig import UnitBits
from hawq.graph.interpret import run_float, run_unit
from hawq.qat.fold import folded_weight
from hawq.sensitivity import METRICS, Operand, Sampling, measure
from hawq.sensitivity.eigenvalue import OneUnit
from hawq.sensitivity.perturbation import WIDTHS, prepare, quantized, squared_error

FOUR = UnitBits(4, 4)


def _sample(name, graph, data, widths=(4, 8)):
    metric = METRICS[name](prepare(graph, widths))
    values = metric.sample(*data, torch.Generator().manual_seed(0))
    assert values.dtype == torch.float64
    assert values.shape == (len(metric.quantities),)
    found = {}
    for quantity, value in zip(metric.quantities, values.tolist(), strict=True):
        for width, factor in quantity.term.factor.items():
            found[quantity.unit, quantity.term.operand, width] = factor * value
    return found


def test_the_squared_error_is_a_sum_over_channels_of_their_own_grids():
    weight = torch.tensor([[7.0, 3.4, -7.0], [70.0, 34.0, -70.0]])  # scales 1 and 10 at 4 bits; codes 7, 3, -7
    assert squared_error(weight, 4) == pytest.approx(0.4**2 + 4.0**2, rel=1e-6)
    assert squared_error(torch.zeros(2, 3), 4) == 0
    assert squared_error(weight.view(2, 3, 1, 1), 4) == squared_error(weight, 4)


def test_more_bits_leave_less_error():
    weight = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    errors = [squared_error(weight, bits) for bits in WIDTHS]
    assert errors == sorted(errors, reverse=True)
    assert errors[WIDTHS.index(4)] / errors[WIDTHS.index(8)] == pytest.approx((127 / 7) ** 2, rel=0.1)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_a_metric_covers_every_unit_in_order_and_is_repeatable(name):
    graph, (data, *_) = build(), batches(4)
    metric = METRICS[name](prepare(graph, (4, 8)))
    units = [quantity.unit for quantity in metric.quantities]
    assert list(dict.fromkeys(units)) == ["a", "b", "head"]
    assert units == sorted(units, key=list(graph.units).index)
    first, second = (metric.sample(*data, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_fisher_is_the_mean_squared_gradient_of_each_image():
    graph, ((images, labels), *_) = build(), batches(3)
    found = _sample("fisher", graph, (images, labels))
    for unit in graph.units:
        weight = folded_weight(graph, unit)[0]
        squares = []
        for image, label in zip(images, labels, strict=True):
            network = OneUnit(prepare(graph, ()).graph, unit)
            F.cross_entropy(network(image[None]), label[None]).backward()
            squares.append(float(network.weight.grad.double().square().sum()))
        expected = sum(squares) / 3 / weight.numel() * squared_error(weight, 4)
        assert found[unit, Operand.WEIGHT, 4] == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_the_eigenvalue_is_the_largest_of_the_full_block():
    graph, ((images, labels), *_) = build(), batches(6)
    found = _sample("eigenvalue", graph, (images, labels))
    for unit in graph.units:
        subject = prepare(graph, ())
        network = OneUnit(subject.graph, unit)

        def loss(weight, network=network):
            moved = torch.func.functional_call(network, {"weight": weight}, (images,))
            return F.cross_entropy(moved, labels)

        weight = subject.weight(unit)
        full = torch.autograd.functional.hessian(loss, weight).reshape(weight.numel(), -1)
        largest = float(torch.linalg.eigvalsh(full.double())[-1])
        expected = largest * squared_error(weight, 4)
        assert found[unit, Operand.WEIGHT, 4] == pytest.approx(expected, rel=0.02)  # PyHessian stops at 1e-3 a step


def _unit_quantized(graph, images, unit, operand, bits):
    """Return the logits of the small network with one operand of one unit quantized, written out by hand."""
    subject = prepare(graph, (bits,))
    tensors = dict(subject.graph.tensors)
    if operand is Operand.WEIGHT:
        tensors[f"{unit}/weight"] = quantized(tensors[f"{unit}/weight"], bits)
    known = run_float(subject.graph, images)

    def read(name, value):
        return subject.quantized_input(name, value, bits) if (name, operand) == (unit, Operand.ACTIVATION) else value

    a = F.relu(F.conv2d(read("a", images), tensors["a/weight"], tensors["a/bias"], padding=1))
    b = F.conv2d(read("b", a), tensors["b/weight"], tensors["b/bias"])
    norm = {field: graph.tensors[f"m.{field}"] for field in ("mean", "var", "weight", "bias")}
    pooled = F.relu(F.batch_norm(a + b, norm["mean"], norm["var"], norm["weight"], norm["bias"])).mean((2, 3))
    return F.linear(read("head", pooled), tensors["head/weight"], tensors["head/bias"]), known["head"]


@pytest.mark.parametrize("operand", Operand)
@pytest.mark.parametrize("unit", ["a", "b", "head"])
def test_kl_and_loss_quantize_one_operand_of_one_unit(unit, operand):
    graph, ((images, labels), *_) = build(), batches(5)
    assert torch.allclose(run_float(graph, images)["head"], reference(graph.tensors, images), atol=1e-6)
    moved, exact = _unit_quantized(graph, images, unit, operand, 2)
    p, q = exact.double().softmax(1), moved.double().softmax(1)
    divergence = float((p * (p / q).log()).sum(1).mean())
    rise = float(F.cross_entropy(moved.double(), labels) - F.cross_entropy(exact.double(), labels))
    assert divergence > 1e-6
    assert _sample("kl", graph, (images, labels), (2,))[unit, operand, 2] == pytest.approx(divergence, rel=1e-3)
    assert _sample("loss", graph, (images, labels), (2,))[unit, operand, 2] == pytest.approx(rise, rel=1e-3, abs=1e-7)


def test_sqnr_is_noise_over_signal_of_the_units_output():
    graph, (data, *_) = build(), batches(5)
    found = _sample("sqnr", graph, data)
    subject = prepare(graph, (4,))
    weight, moved = subject.weight("head"), subject.quantized_weight("head", 4)
    pooled = run_float(subject.graph, data[0])["flat"]
    exact, noisy = (F.linear(pooled, w, subject.graph.tensors["head/bias"]) for w in (weight, moved))
    expected = ((noisy - exact).square().sum(1) / exact.square().sum(1)).mean()
    assert found["head", Operand.WEIGHT, 4] == pytest.approx(float(expected), rel=1e-4)


def test_activations_multiply_their_own_curvature_with_their_own_error(tmp_path):
    graph, data = build(), batches(4, 4)
    weights = measure(graph, Sampling("hessian"), data, tmp_path / "w.json")
    both = measure(graph, Sampling("hessian-activations"), data, tmp_path / "b.json")
    for unit in graph.units:
        assert both.omega(unit, UnitBits(4, 8)) < both.omega(unit, FOUR)
        terms = both.units[unit].terms
        assert [term.operand for term in terms] == [Operand.WEIGHT, Operand.ACTIVATION, Operand.ACTIVATION]
        assert terms[0].samples == weights.units[unit].terms[0].samples


@pytest.mark.parametrize("operand", Operand)
@pytest.mark.parametrize("unit", ["a", "b", "head"])
def test_quadratic_is_the_squared_distance_that_the_derivative_predicts(unit, operand):
    """The mean over many draws of signs against the derivative of the centred logits along the error, by autograd."""
    graph, ((images, labels), *_) = build(), batches(3)
    metric = METRICS["quadratic"](prepare(graph, (4,)))
    samples = torch.stack([metric.sample(images, labels, torch.Generator().manual_seed(seed)) for seed in range(300)])
    subject = prepare(graph, (4,))
    weight = subject.weight(unit)
    value = run_float(subject.graph, images)[graph.nodes[unit].inputs[0]]

    def logits(w, x):
        moved = {**subject.graph.tensors, f"{unit}/weight": w}
        network = replace(subject.graph, tensors=moved)
        replaced = lambda node, given: run_unit(network, node, x if node.name == unit else given)  # noqa: E731
        found = run_float(network, images, replaced)["head"]
        return found - found.mean(1, keepdim=True)

    error = subject.quantized_weight(unit, 4) - weight, subject.quantized_input(unit, value, 4) - value
    along = [error[0], torch.zeros_like(value)] if operand is Operand.WEIGHT else [torch.zeros_like(weight), error[1]]
    _, moved = torch.autograd.functional.jvp(logits, (weight, value), tuple(along))
    column = [(q.unit, q.term.operand) for q in metric.quantities].index((unit, operand))
    spread = float(samples[:, column].std()) / 300**0.5
    assert spread < 0.1 * float(samples[:, column].mean())
    assert abs(float(samples[:, column].mean()) - float(moved.square().sum(1).mean())) < 4 * spread
