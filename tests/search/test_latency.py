"""Latency tables: files, what they fit, and budgets on them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from networks import SIZE, build

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.structure import pinned_units
from hawq.graph.trace import trace
from hawq.hardware import Device, present_device
from hawq.models import create_model
from search import COSTS, Question, check_fits, find_scheme, latency_cost, load_table, options, parse_budget, save_table
from search.latency import LatencyTable, Timing, UniformRun, network_fingerprint

PUBLISHED = Path(__file__).parents[3] / "shared" / "notes" / "published_ilp_inputs.json"
FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


@pytest.fixture(scope="module")
def graph():
    return trace(build("Residual"), (3, SIZE, SIZE))


def _run(graph, ms):
    timings = {name: Timing(ms * (i + 1), ms * i, ms * (i + 2)) for i, name in enumerate(graph.units)}
    return UniformRun(timings, Timing(ms, ms, ms), Timing(10 * ms, 9 * ms, 11 * ms))


@pytest.fixture
def table(graph):
    runs = {FOUR: _run(graph, 1.0), EIGHT: _run(graph, 2.0)}
    return LatencyTable.of("net", graph, runs, target="llvm", batch=1, threads=1, device=present_device("llvm"))


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_file():
        pytest.skip("published_ilp_inputs.json is not here: it lies in ../shared/notes beside the repository")
    return PUBLISHED


@pytest.fixture(scope="module")
def resnet18():
    return trace(create_model("resnet18"), (3, 224, 224))


def _costs(table):
    return {**COSTS, "latency": latency_cost(table)}


def test_a_table_comes_back_from_its_file(table, tmp_path):
    path = tmp_path / "run" / "latency-llvm.json"
    save_table(table, path, options={"seconds": 1.0})
    assert load_table(path, "net") == table
    assert json.loads(path.read_text())["options"] == {"seconds": 1.0}


def test_pinned_units_have_eight_bits_from_the_middle_run(graph, table):
    for name in graph.units:
        expected = {EIGHT} if name in pinned_units(graph) else {FOUR, EIGHT}
        assert set(table.units[name]) == expected
    first = next(iter(graph.units))
    assert table.units[first][EIGHT].median_ms == 1.0  # of the two medians 1 and 2 ms, the lower
    three = {UnitBits(b, b): _run(graph, float(ms)) for b, ms in ((2, 5), (4, 1), (8, 3))}
    middle = LatencyTable.of("net", graph, three, target="llvm", batch=1, threads=1, device=table.device)
    assert middle.units[first][EIGHT].median_ms == 3.0


def test_a_torn_or_foreign_file_is_told(tmp_path):
    path = tmp_path / "latency.json"
    with pytest.raises(UsageError, match="does not exist"):
        load_table(path, "net")
    path.write_text('{"format": "hawq-latency", "version": 1, "units"')
    with pytest.raises(HawqError, match="cut off"):
        load_table(path, "net")
    path.write_text('{"format": "hawq-latency", "version": 1, "units": {}}')
    with pytest.raises(HawqError, match="hawq profile"):
        load_table(path, "net")
    path.write_text('{"format": "hawq-costs", "version": 1}')
    with pytest.raises(HawqError, match="expected 'hawq-latency'"):
        load_table(path, "net")


def test_budgets_on_latency(table):
    costs = _costs(table)
    relative, absolute = parse_budget("latency0.5", costs), parse_budget("latency=2.7ms", costs)
    assert (relative.name, relative.amount) == ("latency0.5", 0.5)
    assert (absolute.name, absolute.amount) == ("latency=2.7ms", 2.7)
    assert parse_budget("latency=2700us", costs).amount == pytest.approx(2.7)
    assert costs["latency"].show(2.70001) == "2.701 ms"
    with pytest.raises(UsageError, match="hawq profile"):
        parse_budget("latency0.5")


def test_a_search_keeps_a_latency_budget(graph, table):
    budget = parse_budget("latency0.5", _costs(table))
    question = Question("net", graph, (budget,), options((4, 8)))
    scheme = find_scheme(question, lambda unit, bits: 1.0 / bits.weight)
    spent = sum(table.units[unit][bits].median_ms for unit, bits in scheme.config.units.items())
    assert scheme.solution.costs["latency0.5"] == pytest.approx(spent)
    assert spent <= scheme.solution.limits["latency0.5"]
    assert {FOUR, EIGHT} == set(scheme.solution.bits.values())


def test_bits_that_were_not_measured_are_named(graph, table):
    searched = next(name for name in graph.units if name not in pinned_units(graph))
    cost = latency_cost(table)
    unit = table.facts[searched]
    with pytest.raises(UsageError, match=r"at 4, 8 bits and not at 2: .*--bits 2,4,8`"):
        cost.of(unit, UnitBits(2, 2))
    with pytest.raises(UsageError, match=r"not at W4A8: .*--target llvm --bits 4,8 --apart`"):
        cost.of(unit, UnitBits(4, 8))
    with pytest.raises(UsageError, match="not in the latency table"):
        cost.of(replace(unit, name="other"), EIGHT)


def test_a_table_of_another_network_is_refused(graph, table):
    check_fits(table, graph)
    check_fits(table, graph, target="llvm")
    other = {f"other.{name}": unit for name, unit in table.facts.items()}
    with pytest.raises(UsageError, match=r"has unit 'other.stem', this network has not: .*hawq profile"):
        check_fits(replace(table, facts=other), graph, foreign=True)
    larger = trace(build("Residual"), (3, 2 * SIZE, 2 * SIZE))
    with pytest.raises(UsageError, match=r"MACs in the latency table .*--size"):
        check_fits(table, larger, foreign=True)
    with pytest.raises(UsageError, match="lacks unit"):
        check_fits(replace(table, facts=dict(list(table.facts.items())[1:])), graph)
    with pytest.raises(UsageError, match="other shapes"):
        check_fits(replace(table, fingerprint="0" * 64), graph)


def test_the_fingerprint_does_not_depend_on_weights(graph):
    assert network_fingerprint(trace(build("Residual", seed=7), (3, SIZE, SIZE))) == network_fingerprint(graph)


@pytest.mark.parametrize("change", [{"name": "Other CPU"}, {"features": ("asimddp",)}])
def test_a_table_of_another_device_is_refused_unless_allowed(graph, table, change):
    elsewhere = replace(table, device=replace(table.device, **change))
    with pytest.raises(UsageError, match=r"this machine is .*hawq profile.*--foreign-table"):
        check_fits(elsewhere, graph)
    check_fits(elsewhere, graph, foreign=True)


def test_the_number_of_cores_is_not_compared(graph, table):
    check_fits(replace(table, device=replace(table.device, cores=999)), graph)


def test_a_table_for_another_target_is_refused_unless_allowed(graph, table):
    with pytest.raises(UsageError, match="for target llvm, wanted is cuda"):
        check_fits(table, graph, target="cuda")
    check_fits(table, graph, target="cuda", foreign=True)


def test_a_gpu_table_on_a_machine_without_gpu(graph, table, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(HawqError, match="shows none"):
        present_device("cuda")
    with pytest.raises(UsageError, match="--foreign-table"):
        check_fits(replace(table, target="cuda", device=Device("H200", ("sm_90",), 132)), graph)


def test_an_unknown_target():
    with pytest.raises(UsageError, match="known: cuda, llvm"):
        present_device("vulkan")


def test_the_published_latencies_of_resnet18(published, resnet18):
    table = load_table(published, "resnet18")
    check_fits(table, resnet18, target="llvm")
    assert table.published
    assert table.origin == "published, Tesla T4 (sm_75), batch 8"
    assert table.total(FOUR) == pytest.approx(3.149, abs=5e-4)
    assert table.total(EIGHT) == pytest.approx(5.344, abs=5e-4)
    budget = parse_budget("latency0.5", _costs(table))
    scheme = find_scheme(Question("resnet18", resnet18, (budget,)), lambda unit, bits: 1.0 / bits.weight)
    solution = json.loads(published.read_text())["models"]["resnet18"]["solutions"]["latency0.5"]
    assert scheme.solution.limits["latency0.5"] == pytest.approx(solution["limit"], abs=1e-6)


def test_the_published_table_fits_only_its_networks(published, graph):
    table = load_table(published, "resnet18")
    with pytest.raises(UsageError, match="this network has not"):
        check_fits(table, graph)
    with pytest.raises(UsageError, match="resnet18, resnet50"):
        load_table(published, "vgg16")
    with pytest.raises(UsageError, match=r"not at 2: allow only those"):
        latency_cost(table).of(next(iter(table.facts.values())), UnitBits(2, 2))
