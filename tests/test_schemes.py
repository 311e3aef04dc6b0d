"""Scheme names become bit configs that fit their network, or an error that says what to do."""

import pytest
from networks import SIZE, build

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.structure import pinned_units
from hawq.graph.trace import trace
from hawq.schemes import resolve_scheme, uniform


@pytest.fixture(scope="module")
def graph():
    return trace(build("Residual"), (3, SIZE, SIZE))


def test_uniform_keeps_first_and_last_at_8(graph):
    config = resolve_scheme("uniform4", "net", graph)
    assert config.scheme == "uniform4"
    assert {name for name, bits in config.units.items() if bits == (8, 8)} == pinned_units(graph) == {"stem", "head"}
    assert all(bits == (4, 4) for name, bits in config.units.items() if name not in {"stem", "head"})


def test_a_searched_scheme_is_read_by_name_or_path(graph, tmp_path):
    config = BitConfig("net", "bops0.5", uniform("net", graph, 4).units)
    path = BitConfig.default_path("net", "bops0.5", tmp_path)
    config.save(path)
    assert dict(resolve_scheme("bops0.5", "net", graph, tmp_path).units) == dict(config.units)
    assert dict(resolve_scheme(str(path), "net", graph).units) == dict(config.units)


def test_a_missing_scheme_says_how_to_make_it(graph, tmp_path):
    with pytest.raises(UsageError, match=r"hawq search -a net --budget bops0\.5"):
        resolve_scheme("bops0.5", "net", graph, tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"conv_1": UnitBits(4, 4)}, "'conv_1' matches no unit; the nearest is 'conv1'"),
        ({"conv3": None}, "no bits for 1 units, first 'conv3'"),
        ({"down": UnitBits(8, 8)}, "units that read one tensor need equal bits"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(graph, tmp_path, change, problem):
    units = {k: v for k, v in (dict(uniform("net", graph, 4).units) | change).items() if v is not None}
    BitConfig("net", "odd", units).save(tmp_path / "odd.json")
    with pytest.raises(HawqError, match=problem):
        resolve_scheme(str(tmp_path / "odd.json"), "net", graph)
