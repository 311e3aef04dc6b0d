"""Scheme names become bit configs that fit their network, or an error that says what to do."""

import pytest
from networks import SIZE, build

from hawq.bitconfig import BitConfig, UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.structure import pinned_units
from hawq.graph.trace import trace
from hawq.schemes import check_exists, resolve_scheme, uniform


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
    ("name", "problem"),
    [
        ("uniform16", "codes have 1 to 8 bits"),
        ("uniform0", "codes have 1 to 8 bits"),
        ("bops0.5", r"hawq search -a net --budget bops0\.5"),
        ("mine", "name a scheme by its budget"),
        ("mine.json", "mine.json does not exist"),
        ("bit_config_resnet18_uniform8", "is a scheme of resnet18, the network is net"),
    ],
)
def test_what_does_not_exist_is_found_before_the_network_is_known(name, problem, graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=problem):
        check_exists(name, "net")
    with pytest.raises(UsageError, match=problem):
        resolve_scheme(name, "net", graph)


def test_what_exists_is_found(graph, tmp_path):
    path = BitConfig.default_path("net", "bops0.5", tmp_path)
    BitConfig("net", "bops0.5", uniform("net", graph, 4).units).save(path)
    (tmp_path / "theirs.json").write_text('{"stem": 8}')
    for name in ("uniform4", "bops_0.50", str(path), str(tmp_path / "theirs.json")):
        check_exists(name, "net", tmp_path)
    check_exists("bops0.5", "resnet18", tmp_path)  # published


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
