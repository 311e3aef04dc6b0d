"""Every spelling of a scheme leads to one name."""

import pytest

from hawq.errors import UsageError
from hawq.scheme_names import canonical_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bops0.5", "bops0.5"),
        ("bops_0.5", "bops0.5"),
        ("bops_0.50", "bops0.5"),
        ("size.5", "size0.5"),
        ("size_0.25", "size0.25"),
        ("modelsize_0.25", "size0.25"),
        ("modelsize0.25", "size0.25"),
        ("modelsize=8MB", "size=8MB"),
        ("latency_0.75", "latency0.75"),
        (" uniform8 ", "uniform8"),
        ("uniform_4", "uniform4"),
        ("bops_0.5+modelsize_0.5", "bops0.5+size0.5"),
        ("bit_config_resnet18_bops_0.5", "bops0.5"),
        ("bit_config_resnet18_modelsize_0.5", "size0.5"),
        ("bit_config_resnet18_uniform8", "uniform8"),
        ("mine_2", "mine_2"),
        ("my_bops_0.5", "my_bops_0.5"),
    ],
)
def test_spellings(text, name):
    assert canonical_name(text, "resnet18") == canonical_name(text) == name
    assert canonical_name(name) == name


def test_a_network_may_have_underscores_in_its_name():
    assert canonical_name("bit_config_mobilenetv2_w1_uniform8", "mobilenetv2_w1") == "uniform8"


@pytest.mark.parametrize("given", ["resnet18", "resnet50b", "mobilenetv2"])
def test_the_key_of_another_network_is_refused(given):
    with pytest.raises(UsageError, match=rf"is a scheme of resnet50, the network is {given}.*-a resnet50.*bops0\.5"):
        canonical_name("bit_config_resnet50_bops_0.5", given)
