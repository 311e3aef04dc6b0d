"""`hawq search` from images to a bit config, on a network that takes milliseconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from hawq.bitconfig import BitConfig, UnitBits
from hawq.cli.search import search
from hawq.errors import HawqError, UsageError
from hawq.files import read_json, write_tensors
from hawq.graph.trace import trace
from hawq.hardware import present_device
from search import unit_facts
from search.latency import LatencyTable, Timing, network_fingerprint
from search.latency_files import save_table

NETWORK = '''
from torch import nn

def tiny(num_classes=3):
    """Return stem, two searched convolutions, head."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
'''


def _network():
    names: dict = {}
    exec(NETWORK, names)
    return names["tiny"]()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with a network, its weights and images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    write_tensors(tmp_path / "float.safetensors", _network().state_dict())
    rng = np.random.default_rng(0)
    arrays = {f"{s}_x": rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8) for s in ("train", "test")}
    arrays |= {f"{s}_y": rng.integers(0, 3, 24) for s in ("train", "test")}
    np.savez(tmp_path / "images.npz", **arrays)
    return tmp_path


def _search(*arguments):
    app = typer.Typer()
    app.command()(search)
    usual = ["-a", "net.py:tiny", "--data", "npz", "--data-path", "images.npz", "--weights", "float.safetensors"]
    small = ["--images", "16", "--run-dir", "run"]
    result = CliRunner().invoke(app, [*usual, *small, *arguments], catch_exceptions=True)
    if isinstance(result.exception, HawqError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_a_search_writes_a_config_that_meets_its_budget(place):
    _search("--budget", "bops0.5")
    path = BitConfig.default_path("net.py:tiny", "bops0.5")
    config, search_facts = BitConfig.load(path), json.loads(path.read_text())["search"]
    assert list(config.units) == ["0", "3", "5", "9"]
    assert config.units["0"] == config.units["9"] == UnitBits(8, 8)
    assert {b.weight for b in config.units.values()} <= {4, 8}
    assert search_facts["budgets"]["bops0.5"]["cost"] <= search_facts["budgets"]["bops0.5"]["limit"]
    assert search_facts["gap"] == 0
    assert list(search_facts["totals"]) == ["bops0.5", "uniform8", "uniform4"]
    assert read_json(place / "run" / "costs.json", "hawq-costs", 1)["units"]["3"]["size"]["4"] == 4 * 6 * 9 / 2


def test_the_same_command_gives_the_same_bytes_and_measures_once(place):
    first = _search("--budget", "size0.5")
    files = [BitConfig.default_path("net.py:tiny", "size0.5"), place / "run" / "sensitivity-jacobian.json"]
    before = [file.read_bytes() for file in files]
    assert "sensitivities: jacobian, 16 images, kept in run" in first.stderr
    _search("--budget", "size0.5")
    assert [file.read_bytes() for file in files] == before
    files[1].unlink()
    _search("--budget", "size0.5")
    assert [file.read_bytes() for file in files] == before


def test_what_people_read(place):
    output = _search("--budget", "size=1KiB", "--budget", "bops0.5").stderr
    assert "8 *" in output
    assert "budget bops0.5: " in output
    assert "uniform4" in output
    assert "next: python quant_train.py --quant-scheme size=1KiB+bops0.5 -a net.py:tiny --data npz" in output


def test_json_is_all_of_stdout(place):
    document = json.loads(_search("--json", "--bits", "2,4,8", "--budget", "size0", "-o", "mine.json").stdout)
    assert document["scheme"] == "size0"
    assert document["path"] == "mine.json"
    assert BitConfig.load(place / "mine.json").scheme == "size0"


def test_wrong_budgets_and_widths_stop_before_any_work(place):
    for arguments, says in [
        (["--budget", "latency0.5"], "latency needs a table measured on the target"),
        (["--bits", "4,16"], "give widths of 2..8"),
        (["--bits", "few"], "give widths of 2..8"),
        (["--pin", "3"], "write PATTERN=BITS with bits of 2..8"),
        (["--pin", "3=9"], "write PATTERN=BITS with bits of 2..8"),
        (["--metric", "magic"], "metric 'magic' is unknown; known are hessian, "),
    ]:
        with pytest.raises(UsageError, match=says):
            _search(*arguments)
    assert not (place / "run").exists()


def test_a_budget_out_of_reach_names_the_limit_that_works(place):
    with pytest.raises(HawqError, match=r"size=100B allows .* the cheapest scheme needs .* MiB"):
        _search("--budget", "size=100B")


def test_pins_and_widths_apart(place):
    facts = ["--budget", "bops=0.0009G", "--bits", "2,4,8", "--apart", "--pin", "3=W2A8", "--metric", "sqnr"]
    config = BitConfig.load(Path(json.loads(_search(*facts, "--json").stdout)["path"]))
    assert config.units["3"] == UnitBits(2, 8)


def test_a_pin_that_matches_nothing_stops_before_the_measurement(place):
    with pytest.raises(UsageError, match=r"pin 'stage9\.\*' matches no unit that is searched"):
        _search("--pin", "stage9.*=8")
    assert not list((place / "run").glob("sensitivity*"))


def test_how_sure_it_is_is_said_and_kept(place):
    result = _search("--budget", "bops0.5", "--json", "--agreement", "1")
    facts = json.loads(result.stdout)["confidence"]
    assert facts["resamples"] == 50
    assert 0 <= facts["agreement"] <= 1
    assert ("not stable" in result.stderr) == (facts["agreement"] < 1)
    assert len(read_json(place / "run" / "sensitivity-jacobian.json", "hawq-sensitivity", 2)["batches"]) == 8


def test_latency_is_a_budget_like_the_others(place):
    """Half of the way from all 4 bit to all 8 bit, by a table in which 4 bits save time in one unit alone."""
    graph = trace(torch.nn.Sequential(*_network()), (3, 8, 8))
    eight, four = UnitBits(8, 8), UnitBits(4, 4)
    units = {"3": {four: Timing(1, 1, 1), eight: Timing(9, 9, 9)}, "5": dict.fromkeys((four, eight), Timing(2, 2, 2))}
    units |= {unit: {eight: Timing(1, 1, 1)} for unit in ("0", "9")}
    table = LatencyTable(
        "net.py:tiny", "llvm", 1, 1, present_device("llvm"), unit_facts(graph), network_fingerprint(graph), units
    )
    save_table(table, place / "latency.json")
    _search("--budget", "latency0.5", "--latency-table", "latency.json")
    config = BitConfig.load(BitConfig.default_path("net.py:tiny", "latency0.5"))
    assert (config.units["3"], config.units["5"]) == (four, eight)
