"""`hawq analyze` as a user types it: in memory, of a checkpoint, from statistics, and what it refuses."""

import csv
import json

import pytest
from PIL import Image
from tiny_run import run_command, set_up

from hawq.cli.analyze import analyze
from hawq.cli.ptq import ptq
from hawq.errors import UsageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    set_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_picture_and_json_agree(place):
    result = run_command(analyze, "--method", "mse", "--bits", "2,8", "--json")
    document = json.loads(result.stdout)
    assert (document["source"], document["images"], set(document["units"])) == (
        "mse", 16, {"stem", "conv1", "conv2", "down", "conv3", "head"})  # fmt: skip
    rows = list(csv.DictReader((place / "run" / "uniform4" / "analysis.csv").open()))
    assert [row["unit"] for row in rows] == list(document["units"])
    for row in rows:
        facts = document["units"][row["unit"]]
        assert float(row["kl"]) == facts["kl"]
        assert float(row["sweep_2_kl"]) == facts["sweep"]["2"]["kl"]
        assert float(row["weight_clipping"]) == facts["weight"]["clipping"]
        assert row["hint"] == facts["hint"]
    with Image.open(place / "run" / "uniform4" / "analysis.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height / 2
    assert "each unit quantized alone, 16 images" in result.stderr
    assert "all units quantized, in integers" in result.stderr


def test_a_checkpoint_is_analyzed_unless_methods_are_given(place):
    assert json.loads(run_command(analyze, "--bits", "8", "--json").stdout)["source"] == "minmax"
    run_command(ptq, "--scheme", "uniform4", "--method", "equalize,percentile")
    kept = json.loads(run_command(analyze, "--bits", "8", "--json").stdout)
    assert kept["source"].endswith("best.pt")
    again = json.loads(run_command(analyze, "--bits", "8", "--json", "--method", "equalize,percentile").stdout)
    assert again["source"] == "equalize, percentile"
    for name, unit in kept["units"].items():  # the same weights; ranges were found in the quantized network
        assert unit["weight"]["sqnr"] == pytest.approx(again["units"][name]["weight"]["sqnr"], abs=1e-3)


def test_statistics_are_collected_once(place):
    first = json.loads(run_command(analyze, "--method", "mse", "--bits", "4", "--stats", "s.json", "--json").stdout)
    written = (place / "s.json").read_bytes()
    again = json.loads(run_command(analyze, "--method", "mse", "--bits", "4", "--stats", "s.json", "--json").stdout)
    assert first == again
    assert (place / "s.json").read_bytes() == written
    run_command(ptq, "--scheme", "uniform4", "--method", "mse", "--stats", "s.json")
    with pytest.raises(UsageError, match="statistics of another network"):
        run_command(analyze, "--method", "equalize", "--stats", "s.json")


@pytest.mark.parametrize(("option", "value", "says"), [("--bits", "1,8", "widths of 2..8"), ("--method", "x", "exist")])
def test_wrong_usage_is_said(place, option, value, says):
    with pytest.raises(UsageError, match=says):
        run_command(analyze, option, value)
