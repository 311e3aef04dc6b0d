"""Hints follow their rules, one figure at a time, and savings are those of the better range."""

from dataclasses import replace

import pytest
import torch
from benches import bench
from networks import images

from hawq.analysis import Hint, Noise, Remedies, UnitAnalysis, hint_of, remedies_of
from hawq.analysis.measure import Effect
from hawq.bitconfig import UnitBits
from hawq.ptq import Statistics, parse_methods

GOOD, BAD = Noise(1.0, 0.0, 1e-4, 1.0), Noise(1.0, 0.0, 1e-2, 0.99)
UNIT = UnitAnalysis(UnitBits(4, 4), GOOD, BAD, BAD, Effect(1.0, 0.1), {}, 1.0)
NONE = Remedies(0.0, 0.0, False)


@pytest.mark.parametrize(
    ("unit", "remedies", "hint"),
    [
        (replace(UNIT, alone=Effect(0.0, 0.001)), Remedies(1.0, 1.0, True), Hint.NOTHING),
        (UNIT, NONE, Hint.INPUT_BITS),
        (UNIT, replace(NONE, input_saving=0.2), Hint.INPUT_RANGE),
        (UNIT, replace(NONE, weight_saving=0.9), Hint.INPUT_BITS),
        (replace(UNIT, unevenness=8.0), replace(NONE, equalizable=True), Hint.INPUT_CHANNELS),
        (replace(UNIT, unevenness=8.0), NONE, Hint.INPUT_BITS),
        (replace(UNIT, weight=BAD, activation=GOOD), NONE, Hint.WEIGHT_BITS),
        (replace(UNIT, weight=BAD, activation=GOOD), replace(NONE, weight_saving=0.2), Hint.WEIGHT_RANGE),
    ],
)
def test_each_rule_decides(unit, remedies, hint):
    assert hint_of(unit, remedies) is hint


def test_the_best_range_saves_nothing_and_a_foolish_one_much():
    work, _ = bench()
    statistics = Statistics.collect(work.graph, [images(8)])
    work.statistics = lambda graph: statistics
    best = remedies_of(work.run(parse_methods("mse")), statistics)
    assert best["conv2"].weight_saving == 0
    assert best["conv2"].input_saving == pytest.approx(0, abs=1e-6)
    assert best["conv2"].equalizable
    assert not best["conv1"].equalizable  # the downsample branch reads the same tensor
    with torch.no_grad():
        for module in work.model.modules():
            if hasattr(module, "shares"):
                module.shares.mul_(0.2)
    foolish = remedies_of(work.model, statistics)
    assert foolish["conv2"].input_saving > 0.5
    assert foolish["conv2"].weight_saving == 0
