"""Costs against the documented figures of the published schemes (methods.md, section 1.1)."""

import json
from pathlib import Path

import pytest
from pytorchcv.model_provider import get_model

from hawq.bitconfig import UnitBits
from hawq.files import read_json
from hawq.graph.trace import trace
from search.costs import COSTS, UnitFacts, save_costs, total_cost, unit_facts

NOTES = Path(__file__).parents[3] / "shared" / "notes"
PUBLISHED = NOTES / "published_bit_configs.json"

# scheme -> (MiB, G); column `exact`
EXACT = {
    "resnet18": {
        "uniform8": (11.138, 116.10), "size0.75": (9.732, 105.00), "size0.5": (7.763, 99.45),
        "size0.25": (7.138, 96.37), "bops0.75": (8.536, 93.90), "bops0.5": (6.487, 74.17),
        "bops0.25": (5.909, 54.44), "latency0.75": (8.536, 93.90), "latency0.5": (7.060, 77.26),
        "latency0.25": (5.909, 54.44), "uniform4": (5.818, 34.71),
    },
    "resnet50": {
        "uniform8": (24.321, 246.91), "size0.75": (20.946, 230.26), "size0.5": (18.696, 200.67),
        "size0.25": (15.759, 168.61), "bops0.75": (21.577, 200.05), "bops0.5": (18.429, 156.89),
        "bops0.25": (16.503, 111.27), "latency0.75": (21.913, 202.52), "latency0.5": (18.273, 157.51),
        "latency0.25": (16.341, 115.58), "uniform4": (13.142, 67.49),
    },
}  # fmt: skip
ROWS = [(arch, scheme) for arch, schemes in EXACT.items() for scheme in schemes]


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} is not here: it lies in ../shared/notes beside the repository")
    return json.loads(PUBLISHED.read_text())


def _figures(facts, bits):
    bits = {name: UnitBits(b, b) for name, b in bits.items()}
    return tuple(COSTS[name].scaled(total_cost(COSTS[name], facts.values(), bits)) for name in ("size", "bops"))


@pytest.mark.parametrize(("arch", "scheme"), ROWS)
def test_published_schemes_cost_what_is_documented(published, arch, scheme):
    facts = {row["name"]: UnitFacts(row["name"], row["weights"], row["macs"]) for row in published["layers"][arch]}
    mib, giga = _figures(facts, published["schemes"][arch][scheme])
    assert (round(mib, 3), round(giga, 2)) == EXACT[arch][scheme]


def test_size_is_bits_over_eight_and_bops_are_macs_times_both_widths():
    unit = UnitFacts("conv", weights=10, macs=700)
    assert COSTS["size"].of(unit, UnitBits(5, 8)) == 6.25
    assert COSTS["bops"].of(unit, UnitBits(5, 8)) == 28000


def test_costs_are_shown_rounded_up_with_four_digits_at_least():
    assert COSTS["size"].show(3 * 2**20) == "3.000 MiB"
    assert COSTS["size"].show(3 * 2**20 + 1) == "3.001 MiB"
    assert COSTS["size"].show(1700) == "0.001622 MiB"
    assert COSTS["size"].show(0) == "0.000 MiB"
    assert COSTS["bops"].show(1.5e9) == "1.500 G"


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_traced_network_has_the_published_facts(published, arch):
    graph = trace(get_model(arch).eval(), (3, 224, 224))
    facts = unit_facts(graph)
    assert {u.name: (u.weights, u.macs) for u in facts.values()} == {
        row["name"]: (row["weights"], row["macs"]) for row in published["layers"][arch]
    }
    for scheme, figures in EXACT[arch].items():
        mib, giga = _figures(facts, published["schemes"][arch][scheme])
        assert (round(mib, 3), round(giga, 2)) == figures


def test_the_costs_of_a_run_are_kept(tmp_path):
    save_costs(tmp_path / "costs.json", {"conv": UnitFacts("conv", weights=10, macs=700)}, (4, 8))
    assert read_json(tmp_path / "costs.json", "hawq-costs", 1)["units"] == {
        "conv": {"weights": 10, "macs": 700, "size": {"4": 5, "8": 10}, "bops": {"4": 11200, "8": 44800}}
    }
