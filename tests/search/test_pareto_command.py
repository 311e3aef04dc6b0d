"""`hawq search --pareto` and `hawq explain`, on a network that takes milliseconds."""

import json

import pytest
from PIL import Image
from tiny_run import run_command, set_up

from hawq.bitconfig import BitConfig
from hawq.cli.explain import explain
from hawq.cli.search import search
from hawq.errors import HawqError
from hawq.files import read_json

UNITS = ["conv1", "down", "conv2", "conv3"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_up(tmp_path)
    return tmp_path


def test_fronts_are_written_printed_and_drawn(place):
    result = run_command(search, "--pareto", "--json")
    document = read_json(place / "run" / "pareto.json", "hawq-pareto", 1)
    assert list(document["fronts"]) == ["size", "bops"]
    assert list(document["marks"]) == ["bops0.5", "uniform8", "uniform4"]
    for name, front in document["fronts"].items():
        assert front[0]["costs"] == document["marks"]["uniform4"]["costs"]
        assert front[-1]["objective"] == pytest.approx(document["marks"]["uniform8"]["objective"])
        assert [point["costs"][name] for point in front] == sorted({point["costs"][name] for point in front})
        assert sorted(front[0]["bits"]) == sorted(UNITS)
    assert json.loads(result.stdout)["pareto"]["fronts"] == document["fronts"]
    assert "Front of bops" in result.stderr
    with Image.open(place / "run" / "pareto.png") as figure:
        assert figure.size == (1680, 660)


def test_the_same_command_draws_the_same_bytes(place):
    files = [place / "run" / f"pareto.{suffix}" for suffix in ("json", "png")]
    run_command(search, "--pareto")
    first = [file.read_bytes() for file in files]
    run_command(search, "--pareto")
    assert [file.read_bytes() for file in files] == first


def test_widths_that_were_not_measured_are_not_marked(place):
    run_command(search, "--pareto", "--metric", "loss", "--bits", "2,8", "--budget", "size=1KiB")
    document = read_json(place / "run" / "pareto.json", "hawq-pareto", 1)
    assert list(document["marks"]) == ["size=1KiB", "uniform8"]
    assert document["fronts"]["size"][0]["alpha"] < 0


def test_a_scheme_is_explained_from_what_its_search_measured(place):
    found = json.loads(run_command(search, "--json", "--budget", "bops0.5", "--budget", "size=1KiB").stdout)
    result = run_command(explain, "--json", "bops0.5+size=1KiB")
    document = json.loads(result.stdout)
    assert document["sensitivity"]["key"] == found["sensitivity"]["key"]
    assert {name: (b["limit"], b["used"]) for name, b in document["budgets"].items()} == {
        name: (b["limit"], b["cost"]) for name, b in found["budgets"].items()
    }
    assert document["units"]["conv1"]["tied"] == ["down"]
    assert not document["units"]["stem"]["searched"]
    assert {unit for step in document["steps"] for unit in step["before"]} == set(UNITS)
    assert sum(document["units"][unit]["omega"] for unit in UNITS) == pytest.approx(found["objective"])
    assert "budget bops0.5: " in result.stderr
    assert "of price" in result.stderr


def test_uniform_schemes_have_steps_but_no_prices(place):
    result = run_command(explain, "--json", "--bits", "2,4,8", "uniform4")
    document = json.loads(result.stdout)
    assert document["budgets"] == {}
    assert len(document["steps"]) == 2 * 3
    assert all(step["worth"] is None for step in document["steps"])
    assert [step["up"] for step in document["steps"]] == [True, False] * 3
    assert "of price" not in result.stderr


def test_a_name_of_the_users_own_says_why_it_has_no_prices(place):
    run_command(search, "-o", "mine.json")
    document = json.loads((place / "mine.json").read_text())
    config = BitConfig.load(place / "mine.json")
    assert document["scheme"] == "bops0.5"
    BitConfig(config.arch, "mine", config.units).save(place / "mine.json")
    result = run_command(explain, "mine.json")
    assert "no prices, because the scheme's name does not tell its budgets: 'mine' is no budget" in result.stderr


def test_a_latency_table_adds_a_front_a_column_and_a_price(place):
    run_command(search, "-o", "mine.json")
    facts = read_json(place / "run" / "costs.json", "hawq-costs", 1)["units"]
    layers = [
        {
            "name": unit,
            "params": facts[unit]["weights"],
            "macs": facts[unit]["macs"],
            "latency_int4": 1,
            "latency_int8": 2,
        }
        for unit in UNITS
    ]
    (place / "table.json").write_text(json.dumps({"models": {"net.py:tiny": {"layers": layers}}}))
    table = ("--latency-table", "table.json")
    run_command(search, "--pareto", "--budget", "latency0.5", *table)
    front = read_json(place / "run" / "pareto.json", "hawq-pareto", 1)["fronts"]["latency"]
    assert [point["costs"]["latency"] for point in front] == [4, 5, 6, 7, 8]
    document = json.loads(run_command(explain, "--json", "latency0.5", *table).stdout)
    assert document["budgets"]["latency0.5"]["limit"] == 6
    assert document["budgets"]["latency0.5"]["price"] > 0
    assert {len(step["before"]) * (1 if step["omega"] < 0 else -1) for step in document["steps"]} == {
        step["costs"]["latency"] for step in document["steps"]
    }
    assert "latency needs a table measured on the target" in run_command(explain, "latency0.5").stderr


def test_a_scheme_that_nobody_searched_is_refused(place):
    with pytest.raises(HawqError, match=r"make it with `hawq search -a net\.py:tiny --budget size0\.5`"):
        run_command(explain, "size0.5")
