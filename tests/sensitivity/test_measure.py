"""Sensitivities are measured batch by batch, once, and say how well they are known."""

import json
from dataclasses import replace

import pytest
import torch
from small_graph import batches, build

from hawq.bitconfig import UnitBits
from hawq.distributed import World
from hawq.errors import HawqError, UsageError
from hawq.sensitivity import METRICS, Operand, Sampling, Sensitivity, Term, UnitSensitivity, measure
from hawq.sensitivity.traces import Hessian

FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)
HESSIAN = Sampling("hessian")


@pytest.fixture
def calls(monkeypatch):
    """Count the batches that are measured."""
    seen = []

    class Counted(Hessian):
        def sample(self, images, labels, generator):
            seen.append(len(labels))
            return super().sample(images, labels, generator)

    monkeypatch.setitem(METRICS, "hessian", Counted)
    return seen


def test_the_second_measurement_is_read_and_equals_the_first(tmp_path, calls):
    cache = tmp_path / "s.json"
    first = measure(build(), HESSIAN, batches(4, 2), cache)
    content = cache.read_bytes()
    assert measure(build(), HESSIAN, batches(4, 2), cache) == first == Sensitivity.load(cache)
    assert calls == [4, 2]
    cache.unlink()
    measure(build(), HESSIAN, batches(4, 2), cache)
    assert cache.read_bytes() == content


def test_more_images_add_to_what_is_known(tmp_path, calls):
    data = batches(*[3] * 12)
    short = measure(build(), HESSIAN, data[:8], tmp_path / "s.json")
    long = measure(build(), HESSIAN, data, tmp_path / "s.json")
    assert len(calls) == 12
    assert long == measure(build(), HESSIAN, data, tmp_path / "other.json")
    assert long.images == 36
    assert long.units["a"].terms[0].samples[:8] == short.units["a"].terms[0].samples


def test_it_stops_when_told_and_keeps_what_it_has(tmp_path, calls):
    looks = []

    def enough(found):
        looks.append(len(found.batches))
        return len(looks) == 2

    found = measure(build(), HESSIAN, batches(*[2] * 40), tmp_path / "s.json", enough)
    assert looks == [8, 16]
    assert len(calls) == len(found.batches) == 16


def test_an_interrupted_measurement_goes_on(tmp_path, calls):
    data = batches(*[2] * 16)

    def torn():
        yield from data[:12]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(build(), HESSIAN, torn(), tmp_path / "s.json")
    found = measure(build(), HESSIAN, data, tmp_path / "s.json")
    assert len(calls) == 16
    assert found == measure(build(), HESSIAN, data, tmp_path / "whole.json")


def _changed(graph, name):
    tensor = graph.tensors[name].clone()
    tensor.view(-1)[0] += 1e-6
    return replace(graph, tensors={**graph.tensors, name: tensor})


@pytest.mark.parametrize(
    "change",
    [
        lambda graph, data: (_changed(graph, "a.weight"), HESSIAN, data),
        lambda graph, data: (_changed(graph, "n.var"), HESSIAN, data),
        lambda graph, data: (graph, Sampling("hessian", seed=1), data),
        lambda graph, data: (graph, Sampling("hessian-activations"), data),
        lambda graph, data: (graph, HESSIAN, [(data[0][0] + 1e-6, data[0][1])]),
        lambda graph, data: (graph, HESSIAN, [(data[0][0], (data[0][1] + 1) % 3)]),
    ],
)
def test_whatever_changes_the_result_is_measured_anew(tmp_path, change):
    graph, data = build(), batches(4)
    measure(graph, HESSIAN, data, tmp_path / "s.json")
    fresh = measure(*change(graph, data), tmp_path / "fresh.json")
    assert measure(*change(graph, data), tmp_path / "s.json") == fresh


def test_widths_matter_only_to_metrics_that_measure_them(tmp_path, calls):
    measure(build(), HESSIAN, batches(4), tmp_path / "s.json")
    measure(build(), Sampling("hessian", (2, 3)), batches(4), tmp_path / "s.json")
    assert calls == [4]
    narrow = measure(build(), Sampling("sqnr", (4,)), batches(4), tmp_path / "q.json")
    with pytest.raises(HawqError, match="weights were not measured at 8 bits, only at 4"):
        narrow.omega("a", UnitBits(8, 4))
    wide = measure(build(), Sampling("sqnr", (4, 8)), batches(4), tmp_path / "q.json")
    assert wide.omega("a", FOUR) == narrow.omega("a", FOUR) > wide.omega("a", EIGHT)


def test_processes_that_share_the_batches_find_the_same(tmp_path, calls):
    """Each of three processes measures its batches; joined they are what one alone finds."""
    data = batches(*[2] * 10)
    alone = measure(build(), HESSIAN, data, tmp_path / "alone.json")
    parts = []

    columns = [term.samples for unit in alone.units.values() for term in unit.terms]
    everything = dict(enumerate(zip(alone.batches, zip(*columns, strict=True), strict=True)))
    rounds = [range(8), range(8, 10)]

    class Recorded(World):
        def join(self, found):
            parts.append(dict(found))
            return {index: everything[index] for index in rounds[len(parts) - 1]}

    for rank in range(3):
        parts.clear()
        found = measure(build(), HESSIAN, data, tmp_path / f"{rank}.json", world=Recorded(rank, 3))
        assert found == alone
        own = {index: sample for part in parts for index, sample in part.items()}
        assert own == {index: everything[index] for index in range(10) if index % 3 == rank}
        assert (tmp_path / f"{rank}.json").exists() == (rank == 0)


@pytest.mark.parametrize("damage", ["{", '{"format": "hawq-sensitivity", "version": 2}', "[]"])
def test_a_broken_cache_is_measured_again(tmp_path, damage):
    cache = tmp_path / "s.json"
    found = measure(build(), HESSIAN, batches(4), cache)
    cache.write_text(damage)
    with pytest.raises(HawqError):
        Sensitivity.load(cache)
    assert measure(build(), HESSIAN, batches(4), cache) == found == Sensitivity.load(cache)


def test_the_file_says_what_it_holds(tmp_path):
    measure(build(), HESSIAN, batches(4, 2), tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text())
    assert (document["format"], document["metric"]) == ("hawq-sensitivity", "hessian")
    assert document["options"] == {"widths": [4, 8], "seed": 0}
    assert [count for _, count in document["batches"]] == [4, 2]
    assert document["environment"]["torch"] == torch.__version__
    (term,) = document["units"]["a"]["terms"]
    assert list(term["factor"]) == ["2", "3", "4", "5", "6", "7", "8"]
    assert len(term["samples"]) == 2


def test_wrong_use_and_bad_numbers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="metric 'magic' is unknown; known are "):
        measure(build(), Sampling("magic"), batches(2), tmp_path / "s.json")
    with pytest.raises(HawqError, match="at least one batch"):
        measure(build(), HESSIAN, [], tmp_path / "s.json")
    broken = _changed(build(), "a.weight")
    broken.tensors["a.weight"].view(-1)[0] = torch.nan
    with pytest.raises(HawqError, match="check the weights and the images for NaN"):
        measure(broken, HESSIAN, batches(2), tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


def _of(samples, counts):
    units = {
        name: UnitSensitivity(1, (Term(Operand.WEIGHT, {4: 2.0, 8: 0.0}, tuple(values)),))
        for name, values in samples.items()
    }
    return Sensitivity("m", "k", tuple((str(i), count) for i, count in enumerate(counts)), {}, {}, units)


def test_means_count_images_and_errors_shrink_with_batches():
    found = _of({"a": [1.0, 2.0, 6.0]}, [10, 10, 20])
    assert found.omega("a", FOUR) == 2 * (0.25 * 1 + 0.25 * 2 + 0.5 * 6)
    even = _of({"a": [1.0, 2.0, 6.0, 7.0]}, [5] * 4)
    assert even.error("a", FOUR) == pytest.approx(2 * torch.tensor([1.0, 2, 6, 7]).std().item() / 2)
    assert _of({"a": [1.0]}, [3]).error("a", FOUR) is None


def test_a_negative_mean_counts_as_zero():
    assert _of({"a": [-3.0, 1.0]}, [1, 1]).omega("a", FOUR) == 0.0


def test_what_all_units_have_in_common_is_no_error():
    hard_batch = {"a": [1.0, 9.0, 1.0], "b": [2.0, 18.0, 2.0]}
    assert _of(hard_batch, [1] * 3).error("a", FOUR) > 1
    assert _of(hard_batch, [1] * 3).share_error(FOUR) == pytest.approx(0, abs=1e-12)
    assert _of({"a": [1.0, 9.0], "b": [9.0, 1.0]}, [1, 1]).share_error(FOUR) > 0.5
    assert _of(hard_batch, [1] * 3).share_error(EIGHT) == 0
