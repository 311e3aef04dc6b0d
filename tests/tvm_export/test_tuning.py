"""Tuning never makes a layer slower, goes on where it stopped, and is decided by its log alone."""

from collections import Counter
from dataclasses import replace

import pytest
from fake_rig import FakeRig

from hawq.errors import HawqError
from tvm_export.plans import Order, Plan, Tile
from tvm_export.tuning import Layer, TuningLog, tune, tuned
from tvm_export.tuning.rig import FINAL

TILES = [Tile(1, pixels, 1) for pixels in range(1, 5)]
PLANS = tuple(Plan(tile, order=order) for tile in TILES for order in Order)
DEFAULT, BEST = PLANS[0], PLANS[-1]
LAYERS = [Layer("a", ("conv1", "conv2"), PLANS), Layer("b", ("conv3",), PLANS[:3])]


def steadily(milliseconds):
    return lambda op, plan, effort: milliseconds.get(plan, 1.0)


def run(rig, path, seconds=100.0):
    return tune(LAYERS, lambda: rig, TuningLog(path), threads=1, seconds=seconds, clock=rig.clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tuning.jsonl"


def test_the_fastest_plan_is_found_in_single_steps(path):
    halfway = replace(DEFAULT, tile=BEST.tile)
    found = run(FakeRig(steadily({halfway: 0.9, BEST: 0.5})), path)
    assert found.plans == {"conv1": BEST, "conv2": BEST}
    first, second = found.layers
    assert (first.default_ms, first.measured.plan_ms, first.measured.ratio) == (2.0, 1.0, 0.5)  # of both together
    assert (second.plan, second.measured, second.default_ms) == (DEFAULT, None, 1.0)
    assert found.network.ratio == 0.9


def test_a_plan_that_was_only_lucky_is_not_taken(path):
    lucky, good = PLANS[1], PLANS[2]

    def milliseconds(op, plan, effort):
        return {lucky: 1.01 if effort is FINAL else 0.5, good: 0.9}.get(plan, 1.0)

    found = run(FakeRig(milliseconds), path)
    assert found.plans == {"conv1": good, "conv2": good, "conv3": good}


@pytest.mark.parametrize("plan_ms", [1.0, 0.99, 1.2])
def test_what_is_not_clearly_faster_stays_as_it_is(path, plan_ms):
    rig = FakeRig(lambda *_: plan_ms)
    found = run(rig, path)
    assert found.plans == {}
    assert found.network is None
    assert len(rig.measured) == 4  # neighbours of the default: three tiles, one order


def test_a_gain_that_noise_may_explain_is_none(path):
    times = iter([0.5, 1.5] * 1000)
    assert run(FakeRig(lambda *_: next(times)), path).plans == {}


def test_a_network_that_gains_nothing_keeps_its_plans(path):
    found = run(FakeRig(steadily({BEST: 0.5, PLANS[1]: 0.6}), whole=1.001), path)
    assert found.network.ratio > 1
    assert found.plans == {}


def test_a_finished_search_measures_nothing_and_the_log_alone_decides(path):
    found = run(FakeRig(steadily({PLANS[1]: 0.5})), path)
    text = path.read_text()

    def never():
        raise AssertionError("nothing is left to measure")

    assert tune(LAYERS, never, TuningLog(path), threads=1, seconds=100.0) == found
    assert tuned(LAYERS, TuningLog(path), 1) == found
    assert path.read_text() == text


@pytest.mark.parametrize("stop_after", range(5))
def test_a_stopped_search_goes_on_after_its_last_whole_line(path, tmp_path, stop_after):
    table = steadily({PLANS[1]: 0.8, BEST: 0.5})
    unbroken = run(FakeRig(table), tmp_path / "other.jsonl")
    first, second = FakeRig(table, stop_after=stop_after), FakeRig(table)
    with pytest.raises(KeyboardInterrupt):
        run(first, path)
    if stop_after:
        with path.open("a") as file:
            file.write('{"stage": "trial", "layer": "a", "pl')
    assert run(second, path) == unbroken
    measured = Counter((op, *facts) for done in first.measured + second.measured for op, facts in done.items())
    assert set(measured.values()) == {1}


def test_time_spent_before_counts_and_more_of_it_goes_on(path):
    table = steadily({PLANS[1]: 0.9, BEST: 0.5})
    short = FakeRig(table)
    assert run(short, path, seconds=1.0).plans["conv1"] == PLANS[1]
    again = FakeRig(table)
    assert run(again, path, seconds=1.0).plans["conv1"] == PLANS[1]
    assert again.measured == []
    assert run(FakeRig(table), path, seconds=100.0).plans["conv1"] == BEST


def test_no_time_chooses_the_defaults_and_writes_nothing(path):
    assert run(FakeRig(steadily({})), path, seconds=0.0).plans == {}
    assert not path.exists()


def test_progress_is_told(path):
    heard, rig = [], FakeRig(steadily({PLANS[1]: 0.5}))
    tune(LAYERS, lambda: rig, TuningLog(path), threads=1, seconds=100.0, clock=rig.clock,
         advance=lambda *told: heard.append(told))  # fmt: skip
    assert heard == [
        (0.0, "2 of 2 layers have plans to try"),
        (1.0, "2 of 2 layers have plans to try"),
        *((float(spent), "1 of 2 layers have plans to try") for spent in range(2, 7)),
        (100.0, "measuring 2 layers again"),
        (100.0, "measuring the network"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "line 1 cannot be read"),
        ('{"format": "hawq-tuning", "version": 2}\n', "no hawq-tuning log of version 1"),
        ('{"format": "hawq-tuning", "version": 1}\n{"stage": "trial"}\n', "line 2 cannot be read"),
    ],
)
def test_other_files_are_refused(path, text, message):
    path.write_text(text)
    with pytest.raises(HawqError, match=message):
        TuningLog(path)


def test_a_log_torn_in_its_first_line_begins_anew(path):
    path.write_text('{"format": "hawq-tu')
    found = run(FakeRig(steadily({PLANS[1]: 0.5})), path)
    assert tuned(LAYERS, TuningLog(path), 1) == found


def test_neighbours_differ_in_one_choice():
    layer = LAYERS[0]
    assert layer.neighbours(DEFAULT) == [PLANS[1], PLANS[2], PLANS[4], PLANS[6]]
    assert layer.neighbours(PLANS[1]) == [PLANS[3], PLANS[5], PLANS[7]]
