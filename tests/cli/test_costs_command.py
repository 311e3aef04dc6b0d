"""`hawq costs`: exact figures beside the published ones."""

import json

import pytest
import typer
from typer.testing import CliRunner

from hawq.bitconfig import BitConfig
from hawq.cli.costs import costs
from hawq.published import published_config


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _costs(*arguments):
    app = typer.Typer()
    app.command()(costs)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_a_published_scheme_works_out_of_the_box(place, caplog):
    document, printed = _costs("-a", "resnet18", "--scheme", "modelsize_0.5")
    assert "using the published size0.5 of resnet18" in caplog.text
    assert document["scheme"] == "size0.5"
    assert round(document["totals"]["size0.5"]["size"] / 2**20, 3) == 7.763
    assert round(document["totals"]["size0.5"]["bops"] / 1e9, 2) == 99.45
    assert document["paper_accounting"]["inferred"] is True
    assert round(document["paper_accounting"]["bops_g"]) == 98 == document["published"]["bops_g"]
    assert document["published"]["same_bits"] is True
    assert "size0.5, as the paper counts (inferred)" in printed
    assert "published: top-1 70.5%, 3.18 times as fast as float32" in printed


def test_the_users_own_file_wins_and_is_told_from_the_published_one(place, caplog):
    units = published_config("resnet18", "bops0.25").units
    BitConfig("resnet18", "bops0.5", units).save(BitConfig.default_path("resnet18", "bops0.5"))
    document, printed = _costs("-a", "resnet18", "--scheme", "bops0.5")
    assert not caplog.text
    assert document["published"]["same_bits"] is False
    assert "bops0.5, published, other bits" in printed
    assert round(document["totals"]["bops0.5"]["bops"] / 1e9, 2) == 54.44


def test_size_and_classes_change_the_costs(place):
    document, _ = _costs("-a", "torchvision:resnet18", "--scheme", "uniform4", "--size", "112", "--num-classes", "10")
    assert document["image_size"] == 112
    assert document["units"]["fc"] == {
        "weights": 5120, "macs": 5120, "bits": {"weight": 8, "activation": 8}, "size": 5120, "bops": 5120 * 64,
    }  # fmt: skip
    assert document["paper_accounting"] is None


def test_a_latency_table_adds_a_column(place):
    plain, _ = _costs("--scheme", "uniform8")
    assert plain["latency"] is None
    layers = [
        {"name": name, "params": unit["weights"], "macs": unit["macs"], "latency_int4": 1.0, "latency_int8": 2.0}
        for name, unit in list(plain["units"].items())[1:-1]
    ]
    (place / "table.json").write_text(json.dumps({"models": {"resnet20_cifar10": {"layers": layers}}}))
    document, printed = _costs("--scheme", "uniform4", "--latency-table", "table.json")
    assert document["latency"] == "published, Tesla T4 (sm_75), batch 8"
    assert document["units"]["features.stage1.unit1.body.conv1.conv"]["latency"] == 1
    assert {name: total["latency"] for name, total in document["totals"].items()} == {"uniform4": 20, "uniform8": 40}
    assert "latency (ms)" in printed
    assert "latency: published, Tesla T4 (sm_75), batch 8; the sum over units" in printed
