"""Statistics stand for images: the same extremes, and nearly the same ranges by every rule."""

import pytest
import torch
from benches import bench
from networks import NETWORKS, images

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.interpret import run_float
from hawq.graph.structure import pinned_units
from hawq.ptq import METHODS, Stage, Statistics, parse_methods
from hawq.quantizers import ACTIVATION_QUANTIZERS, ActivationGrid, QuantOptions, activation_quantizer

BATCHES = [images(8, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def collected():
    work, _ = bench()
    return work.graph, Statistics.collect(work.graph, BATCHES)


def test_summaries_are_those_of_all_values(collected):
    graph, found = collected
    tensors = run_float(graph, torch.cat(BATCHES))
    assert found.images == 16
    assert set(found.summaries) == set(found.samples) == set(tensors)
    for name, value in tensors.items():
        summary, exact = found.summaries[name], value.double()
        assert summary.values == value.numel()
        # batches of 8 and of 16 images may take different kernels, whose sums differ in the last bits
        torch.testing.assert_close(summary.low, float(exact.min()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(summary.high, float(exact.max()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(summary.mean, float(exact.mean()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(summary.std, float(exact.std(correction=0)), rtol=1e-5, atol=1e-5)
        # tensors this small are kept whole
        spread = float((exact - exact.mean()).abs().mean())
        torch.testing.assert_close(summary.spread, spread, rtol=1e-4, atol=1e-5)


def test_a_sample_holds_the_extremes_and_is_bounded():
    work, _ = bench()
    many = [images(100, seed) for seed in (1, 2)]
    found = Statistics.collect(work.graph, many)
    stem = work.graph.input.name
    assert found.summaries[stem].values > 1 << 17
    assert len(found.samples[stem]) <= (1 << 17) + 2
    for name, sample in found.samples.items():
        assert (float(sample.min()), float(sample.max())) == (found.summaries[name].low, found.summaries[name].high)


@pytest.mark.parametrize("name", NETWORKS)
def test_minmax_ranges_are_those_of_the_float_network(name):
    work, _ = bench(name, images=None)
    statistics = Statistics.collect(work.graph, BATCHES)
    work.statistics = lambda graph: statistics
    model = work.run(parse_methods("minmax"))
    for root, spec in model.plan.stored.items():
        scale, zero_point = model.stored_quantizer(root).scale_and_zero_point()
        summary = statistics.summaries[root]
        wanted = spec.grid.place(torch.tensor(summary.low), torch.tensor(summary.high), spec.bits)
        assert (float(scale), zero_point) == (float(wanted[0]), wanted[1])
    assert torch.isfinite(model(images(4))).all()


@pytest.mark.parametrize("quantizer", ["mse", "percentile"])
def test_a_rule_finds_nearly_the_range_it_finds_on_the_images(quantizer, collected):
    graph, _ = collected
    many = [images(64, seed) for seed in range(4)]
    values = torch.cat([run_float(graph, batch)["stem"] for batch in many])
    sample = Statistics.collect(graph, many).samples["stem"]
    assert len(sample) < values.numel()
    ends = []
    for shown in (values, sample):
        rule = activation_quantizer(quantizer)(4, ActivationGrid.UNSIGNED, QuantOptions())
        rule.calibrating = True
        rule(shown)
        ends.append(float(rule.scale_and_zero_point()[0]))
    assert ends[1] == pytest.approx(ends[0], rel=0.1)  # a step of the search is 9%


@pytest.mark.parametrize("quantizer", ACTIVATION_QUANTIZERS)
def test_every_quantizer_can_begin_from_statistics(quantizer, collected):
    graph, found = collected
    bits = activation_quantizer(quantizer).widths[0]
    work, _ = bench(statistics=lambda graph: found)
    units = {name: UnitBits(8, 8 if name in pinned_units(graph) else bits) for name in graph.units}
    work.bits = BitConfig("net", "narrow", units)
    work.use(act_quantizer=quantizer)
    assert torch.isfinite(work.model(images(4))).all()


def test_a_file_gives_back_what_was_collected(collected, tmp_path):
    graph, found = collected
    path = tmp_path / "stats.json"
    seen = []

    def source():
        seen.append(1)
        return BATCHES

    first, again = (Statistics.kept(path, graph, source) for _ in range(2))
    assert len(seen) == 1
    assert again.summaries == first.summaries == found.summaries
    assert again.images == 16
    assert all(torch.equal(again.samples[name], found.samples[name]) for name in graph.nodes)


def test_statistics_of_a_changed_network_are_refused(collected, tmp_path):
    _, found = collected
    found.save(tmp_path / "stats.json")
    work, _ = bench(statistics=lambda graph: Statistics.kept(tmp_path / "stats.json", graph, list))
    with pytest.raises(UsageError, match="another network"):
        work.run([METHODS["equalize"]])
    assert METHODS["equalize"].stage is Stage.FLOAT


def test_what_is_wrong_is_said(collected, tmp_path):
    graph, found = collected
    with pytest.raises(HawqError, match="at least one image"):
        Statistics.collect(graph, [])
    with pytest.raises(HawqError, match="is not finite in float"):
        Statistics.collect(graph, [torch.full((1, 3, 16, 16), torch.inf)])
    path = tmp_path / "stats.json"
    found.save(path)
    path.write_text(path.read_text().replace('"spread"', '"width"'))
    with pytest.raises(HawqError, match="no complete statistics"):
        Statistics.load(path)
