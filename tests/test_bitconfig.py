import json

import pytest

from hawq.bitconfig import BitConfig, UnitBits, UnitQuantizers
from hawq.errors import HawqError, UsageError

CONFIG = BitConfig("resnet18", "bops0.5", {"stem": UnitBits(8, 8), "conv": UnitBits(4, 8), "head": UnitBits(2, 3)})


def test_a_config_comes_back_in_the_order_of_the_network(tmp_path):
    path = BitConfig.default_path("torchvision:resnet18", "bops0.5+size=8MB", tmp_path)
    assert path == tmp_path / "torchvision-resnet18" / "bops0.5-size=8MB.json"
    CONFIG.save(path, objective=1.5)
    found = BitConfig.load(path)
    assert found == CONFIG
    assert list(found.units) == ["stem", "conv", "head"]
    assert json.loads(path.read_text())["objective"] == 1.5


def test_quantizers_of_single_units_come_back(tmp_path):
    named = {"conv": UnitQuantizers("lsq", None), "head": UnitQuantizers(None, "pact")}
    config = BitConfig("net", "s", CONFIG.units, named)
    config.save(tmp_path / "a.json")
    assert BitConfig.load(tmp_path / "a.json") == config
    with pytest.raises(HawqError, match="stray has a quantizer but no bits"):
        BitConfig("net", "s", CONFIG.units, {"stray": UnitQuantizers("lsq")})


@pytest.mark.parametrize("bits", [(0, 8), (8, 9), (8, 16), (4.0, 4), ("4", 4)])
def test_widths_outside_1_to_8_are_refused(bits):
    with pytest.raises(HawqError, match=r"unit conv has bits .*; allowed are 1\.\.8"):
        BitConfig("net", "odd", {"conv": UnitBits(*bits)})


@pytest.mark.parametrize("units", [{"conv": {"weight": 4}}, {"conv": 4}, {"conv": None}, [1]])
def test_a_file_without_both_widths_is_refused(tmp_path, units):
    path = tmp_path / "a.json"
    document = {"format": "hawq-bit-config", "version": 1, "arch": "net", "scheme": "s", "units": units}
    path.write_text(json.dumps(document))
    with pytest.raises(HawqError, match="every unit needs 'weight' and 'activation' bits"):
        BitConfig.load(path)


def test_a_missing_config_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        BitConfig.load(tmp_path / "none.json")
