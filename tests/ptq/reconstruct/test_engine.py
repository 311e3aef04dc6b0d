"""Learning brings a block nearer to the float network; with all or nothing dropped it is one of the plain cases."""

from dataclasses import replace

import pytest
import torch
from benches import bench
from networks import NETWORKS, images

from hawq.ptq import parse_methods
from hawq.ptq.reconstruct.activations import float_activations, quantized_activations
from hawq.ptq.reconstruct.blocks import blocks, nodes_alone
from hawq.ptq.reconstruct.engine import Reconstruction, learn
from hawq.ptq.reconstruct.network import reconstruct
from hawq.ptq.reconstruct.storage import Storage
from hawq.ptq.reconstruct.subjects import find_subjects

HOW = Reconstruction(120, drop=0.0, ranges=False, rounding_rate=0.03)


def learned(name, part, how, output, seed=0, shift=0.0):
    """Reconstruct one block of a network whose other parts are calibrated; return its errors before and after."""
    work, _ = bench(name)
    model = work.run(parse_methods("mse"))
    if shift:
        model.unit(output).bias.data += shift
    found, pictures = part(model.graph), images(64, seed=5)
    subjects = find_subjects(model, found, ranges=how.ranges)
    floats, quantized = (make(net, pictures, Storage(1)) for make, net in
                         ((float_activations, model.graph), (quantized_activations, model)))  # fmt: skip
    errors, codes = [], None
    with torch.no_grad():
        for block, each in zip(found, subjects, strict=True):
            floats.advance(block)
            quantized.advance(block)
            if block.output != output:
                continue
            target = floats.values[output]
            errors.append(float((quantized.values[output] - target).square().mean()))
            learn(model, block, each, quantized.values, floats.values, how, seed, lambda *_: None)
            quantized.advance(block)
            errors.append(float((quantized.values[output] - target).square().mean()))
            codes = [model.unit(unit).quantizer.codes(model.unit(unit).weight)[0] for unit in each.units]
            return errors, codes, [model.input_quantizer(root).scale_and_zero_point() for root in each.ranges]
    raise AssertionError(output)


@pytest.mark.parametrize(("name", "output"), [("Residual", "conv2"), ("Inverted", "grouped"), ("Dense", "conv2")])
def test_a_unit_comes_nearer_than_with_nearest_rounding(name, output):
    (before, after), _, _ = learned(name, nodes_alone, HOW, output)
    assert after < 0.95 * before


def test_a_wrong_bias_is_found():
    still = replace(HOW, gain_rate=0.0, bias_rate=0.0)
    errors = [
        learned("Inverted", nodes_alone, how, "grouped", shift=0.1)[0] for how in (still, replace(HOW, bias_rate=0.02))
    ]
    assert errors[0][0] == errors[1][0]
    assert errors[1][1] < 0.5 * errors[0][1]


def test_gains_and_biases_stay_where_nothing_is_to_be_learned_of_them():
    still = replace(HOW, gain_rate=0.0, bias_rate=0.0, iterations=10)
    for how, same in ((still, True), (replace(HOW, iterations=10), False)):
        work, _ = bench("Residual")
        model = work.run(parse_methods("mse"))
        before = {
            name: (model.unit(name).quantizer.scale(model.unit(name).weight), model.unit(name).bias.clone())
            for name in ("conv1", "conv2")
        }
        with torch.no_grad():
            reconstruct(work, "adaround", nodes_alone(model.graph), how)
        for name, (scale, bias) in before.items():
            unit = model.unit(name)
            assert unit.quantizer.scale(unit.weight).equal(scale) == same
            assert unit.bias.equal(bias) == same


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize(("name", "output", "count"), [("Residual", "add", 2), ("Inverted", "project", 2)])
def test_a_block_comes_nearer(name, output, count, drop):
    (before, after), _, ranges = learned(name, blocks, replace(HOW, ranges=True, drop=drop), output)
    assert after < 0.95 * before
    assert len(ranges) == count


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    how = replace(HOW, ranges=True, drop=0.5, iterations=20)
    first, again, other = (learned("Residual", blocks, how, "add", seed) for seed in (0, 0, 1))
    assert first[0] == again[0]
    assert first[2] == again[2]
    assert all(a.equal(b) for a, b in zip(first[1], again[1], strict=True))
    assert first[2] != other[2]


def test_with_everything_dropped_ranges_are_not_learned():
    work, _ = bench()
    model = work.run(parse_methods("mse"))
    subjects = dict(zip([block.output for block in blocks(model.graph)],
                        find_subjects(model, blocks(model.graph), ranges=True), strict=True))  # fmt: skip
    before = [model.input_quantizer(root).step() for root in subjects["add"].ranges]
    _, _, after = learned("Residual", blocks, replace(HOW, iterations=10, ranges=True, drop=1.0), "add")
    assert [float(step) for step in before] == [float(step) for step, _ in after]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_that_is_not_pinned_is_learned_once(name):
    work, _ = bench(name)
    model = work.model
    for part in (blocks, nodes_alone):
        subjects = find_subjects(model, part(model.graph), ranges=True)
        units = [unit for each in subjects for unit in each.units]
        assert sorted(units) == sorted(unit for unit, bits in model.bits.units.items() if bits.weight == 4)
        roots = [root for each in subjects for root in each.ranges]
        assert len(roots) == len(set(roots))


def test_the_power_falls_linearly_after_the_warmup():
    how = Reconstruction(100, drop=0.0, ranges=False)
    assert [how.power(19), how.power(20), how.power(60)] == [None, 20.0, 11.0]
    assert how.power(99) == pytest.approx(2.0 + 18 / 80)
    assert [how.decay(0), how.decay(50)] == [1.0, pytest.approx(0.5)]
