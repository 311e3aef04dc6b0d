"""Every figure of an analysis against a plain computation of its definition."""

from dataclasses import replace

import pytest
import torch
from benches import bench
from networks import NETWORKS, images
from schemes import calibrated

from hawq.analysis import Noise, analyze, reference_graph, sweep_models
from hawq.analysis.noise import NoiseMeter, activation_ends, weight_ends
from hawq.errors import HawqError
from hawq.graph.functional import clamp
from hawq.graph.interpret import run_float, run_unit
from hawq.ptq import Statistics, parse_methods
from hawq.quantizers import ACTIVATION_QUANTIZERS, ActivationGrid, QuantOptions, activation_quantizer

DATA = [images(8, seed) for seed in (1, 2)]
LABELS = [torch.arange(8) % 10, torch.arange(8) % 10]


def _analyzed(name="Residual", scheme="uniform4", methods="percentile", widths=(2, 8)):
    work, _ = bench(name, scheme)
    model = work.run(parse_methods(methods))
    statistics = Statistics.collect(work.graph, DATA)
    sweep = sweep_models(work.graph, work.options, statistics, widths)
    return work.graph, model, sweep, analyze(work.graph, model, sweep, zip(DATA, LABELS, strict=True))


def test_clipping_and_rounding_are_the_whole_error():
    exact = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quantized = (exact * 4).round().clamp(-3, 3) / 4
    ends = (torch.tensor(-0.75), torch.tensor(0.75))
    meter = NoiseMeter()
    for rows in (slice(0, 20), slice(20, 50)):
        meter.add(exact[rows], quantized[rows], ends)
    found, error = meter.noise(), (quantized - exact).square()
    beyond = exact.abs() > 0.75
    assert found.error == pytest.approx(float(error.mean()), rel=1e-13)
    assert found.clipping == pytest.approx(float(error[beyond].sum() / 350), rel=1e-13)
    assert found.rounding == pytest.approx(float(error[~beyond].sum() / 350), rel=1e-12)
    assert found.sqnr == pytest.approx(10 * torch.log10(exact.square().mean() / error.mean()).item())
    assert found.cosine == pytest.approx(torch.cosine_similarity(exact.flatten(), quantized.flatten(), dim=0).item())
    assert found.clipping > found.rounding > 0


def test_noise_of_nothing_is_defined():
    assert (Noise(1.0, 0.0, 0.0, 1.0).sqnr, Noise(0.0, 0.0, 1.0, 0.0).sqnr) == (float("inf"), float("-inf"))
    assert Noise(1.0, 0.0, 0.0, 1.0).clipped == 0
    meter = NoiseMeter()
    meter.add(torch.zeros(4), torch.zeros(4))
    assert meter.noise() == Noise(0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ACTIVATION_QUANTIZERS)
def test_ends_are_what_the_codes_reach(name):
    cls = activation_quantizer(name)
    for grid in (ActivationGrid.UNSIGNED, ActivationGrid.SYMMETRIC):
        value = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        value = value.relu() if grid is ActivationGrid.UNSIGNED else value
        quantizer = cls(cls.widths[-1], grid, QuantOptions())
        quantizer.calibrating = True
        quantizer(value)
        quantizer.calibrating = False
        quantizer.eval()
        low, high = (end.detach() for end in activation_ends(quantizer))
        reached = quantizer(torch.linspace(-100, 100, 9999)).detach()
        assert float(high) == pytest.approx(float(reached.max()), rel=1e-6)
        wanted = float(reached.min()) if grid is ActivationGrid.SYMMETRIC else min(float(low), float(reached.min()))
        assert float(low) <= wanted + 1e-6


def test_weights_beyond_the_largest_code_are_clipped():
    model = calibrated("Residual", "uniform4", weight_quantizer="percentile", weight_percentile=90.0)
    unit = model.unit("conv2")
    low, high = weight_ends(unit)
    assert torch.equal(high.flatten(), unit.quantizer.scale(unit.weight) * 7)
    assert torch.equal(low, -high)
    assert bool((unit.weight > high).any())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_unit_alone_is_the_network_with_that_unit_replaced(name):
    graph, model, sweep, found = _analyzed(name)
    image, labels = torch.cat(DATA), torch.cat(LABELS)
    exact = run_float(graph, image)[graph.output]
    for unit, result in found.units.items():
        source = graph.nodes[unit].inputs[0]
        for against, effect in ((model, result.alone), (sweep[2], result.sweep[2])):

            def replaced(node, value, against=against, unit=unit, source=source):
                if node.name != unit:
                    return run_unit(graph, node, value)
                quantizer = against.input_quantizer(source)
                return against.unit(unit).unclamped(quantizer(value), quantizer, True)

            logits = run_float(graph, image, replaced)[graph.output]
            p, q = exact.double().softmax(1), logits.double().softmax(1)
            kl = float((p * (p.log() - q.log())).sum(1).mean().detach())
            # batches of 8 and of 16 images may take different kernels, whose sums differ in the last bits
            assert effect.kl == pytest.approx(kl, rel=1e-3, abs=1e-7)
            lost = int((exact.argmax(1) == labels).sum()) - int((logits.argmax(1) == labels).sum())
            assert effect.drop == pytest.approx(100 * lost / 16)
        assert result.bits == model.bits.units[unit]


def test_noise_is_that_of_weights_input_and_output():
    graph, model, _, found = _analyzed()
    image = torch.cat(DATA)
    known = run_float(graph, image)
    for unit, result in found.units.items():
        module, source = model.unit(unit), graph.nodes[unit].inputs[0]
        quantizer, exact = model.input_quantizer(source), graph.tensors[f"{unit}/weight"]
        output = module(quantizer(known[source]), quantizer, True)
        for noise, x, q in (
            (result.weight, exact, module.quantizer(module.weight)),
            (result.activation, known[source], quantizer(known[source])),
            (result.output, known[unit], output),
        ):
            assert noise.error == pytest.approx(float((q.double() - x.double()).square().mean().detach()), rel=1e-3)
        limits = graph.unit(unit).clamp
        assert torch.equal(clamp(output, limits), output)
    assert any(result.activation.clipping > 0 for result in found.units.values())
    assert all(result.weight.clipping < 1e-12 for result in found.units.values())  # minmax clips no weight


def test_fewer_bits_cost_more_and_the_worst_come_first():
    *_, found = _analyzed(widths=(2, 4, 8))
    total = {width: sum(unit.sweep[width].kl for unit in found.units.values()) for width in (2, 4, 8)}
    assert total[2] > 4 * total[4] > 16 * total[8]
    order = [found.units[name].alone.kl for name in found.worst_first]
    assert order == sorted(order, reverse=True)
    assert len(order) == len(found.units)


def test_the_reference_of_a_model_has_its_own_weights():
    model = calibrated("Dense")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    graph = reference_graph(model)
    for unit in graph.units:
        factor, bias = model.unit(unit).affine()
        weight = model.unit(unit).weight
        weight = weight if factor is None else weight * factor.view(-1, *(1,) * (weight.dim() - 1))
        assert torch.equal(graph.tensors[f"{unit}/weight"], weight)
        bias = torch.zeros(len(weight)) if bias is None else bias
        assert torch.equal(graph.tensors[f"{unit}/bias"], bias)
    assert torch.equal(graph.tensors[graph.nodes["norm1"].op.norm.weight], model.unit("norm1").norm.weight)


def test_a_network_that_is_no_classifier_is_refused():
    graph, model, sweep, _ = _analyzed()
    with pytest.raises(HawqError, match="only classifiers"):
        analyze(replace(graph, outputs={"logits": "stem"}), model, sweep, [])
    with pytest.raises(HawqError, match="at least one image"):
        analyze(graph, model, sweep, [])
