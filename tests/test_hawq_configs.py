"""HAWQ's bit-config dictionaries: the published ones exactly, and small ones with every kind of mistake."""

import json
from pathlib import Path

import pytest

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError, UsageError
from hawq.graph.trace import trace
from hawq.hawq_configs import bit_config_of
from hawq.models import create_model
from hawq.published import published_config
from hawq.schemes import check_fits, resolve_scheme, scheme_of

PUBLISHED = Path(__file__).parents[2] / "shared" / "notes" / "published_bit_configs.json"
SCHEMES = ["uniform8", "uniform4", *(f"{cost}{a}" for cost in ("size", "bops", "latency") for a in (0.75, 0.5, 0.25))]
ARCH = "resnet20_cifar10"


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} is not here: it lies in ../shared/notes beside the repository")
    return json.loads(PUBLISHED.read_text())


@pytest.fixture(scope="module")
def graphs():
    sizes = {"resnet18": 224, "resnet50": 224, "mobilenetv2_w1": 224, ARCH: 32}
    return {arch: trace(create_model(arch), (3, size, size)) for arch, size in sizes.items()}


def _dictionary(graph, bits):
    """Return the dictionary that HAWQ would write for a pytorchcv ResNet; `bits` names units by their role."""
    entries = {"quant_input": 8, "quant_init_block_convbn": 8, "quant_act_int32": 16}
    for unit in graph.units:
        parts = [part for part in unit.split(".") if part not in ("features", "body", "conv")]
        if parts[0].startswith("stage"):
            block, name = ".".join(parts[:2]), parts[2]
            act = "" if name in ("conv1", "identity_conv") else str(int(name[-1]) - 1)
            weight = "quant_identity_convbn" if name == "identity_conv" else f"quant_convbn{name[-1]}"
            entries[f"{block}.{weight}"] = bits.get(f"{block}.{name}", 8)
            entries[f"{block}.quant_act{act}"] = [bits.get(f"{block}.{name}", 8), "hook"]
            entries[f"{block}.quant_act_int32"] = 16
    return entries | {"quant_act_output": 8, "quant_output": 8}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_published_dictionaries_give_the_published_bits(published, graphs, arch, scheme):
    bits = published["schemes"][arch][scheme]
    entries = {"quant_act_int32": 16, "stage1.unit1.quant_act_int32": 16}
    for unit, keys in published["names"][arch].items():
        entries |= {keys["weight_key"]: bits[unit], keys["input_act_key"]: bits[unit]}
    config = bit_config_of(entries, arch, scheme, graphs[arch])
    assert config.units == {unit: UnitBits(b, b) for unit, b in bits.items()}
    check_fits(config, graphs[arch])
    assert bit_config_of(bits, arch, scheme, graphs[arch]).units == config.units  # module paths as keys
    if not scheme.startswith("uniform"):
        assert published_config(arch, scheme).units == config.units


def test_a_published_scheme_stands_in_for_a_missing_file_and_says_so(graphs, tmp_path, caplog):
    config = resolve_scheme("bit_config_resnet18_bops_0.5", "resnet18", graphs["resnet18"], tmp_path)
    assert config == published_config("resnet18", "bops0.5")
    assert sum(bits == (4, 4) for bits in config.units.values()) == 9
    assert "using the published bops0.5 of resnet18 (HAWQ-V3, arXiv 2011.10680)" in caplog.text
    own = resolve_scheme("uniform4", "resnet18", graphs["resnet18"])
    own.save(tmp_path / "resnet18" / "bops0.5.json")
    assert resolve_scheme("bops_0.5", "resnet18", graphs["resnet18"], tmp_path).units == own.units
    assert published_config(ARCH, "bops0.5") is None


def test_a_dictionary_in_a_file_is_a_scheme(graphs, tmp_path):
    entries = _dictionary(graphs[ARCH], {"stage2.unit1.conv2": 4, "stage1.unit1.conv1": 2})
    for name, document in (
        ("size_0.5", entries),
        ("nested", {f"bit_config_{ARCH}_modelsize_0.5": entries}),
        ("many", {f"bit_config_{ARCH}_modelsize_0.5": entries, "bit_config_resnet18_bops_0.5": {"quant_input": 8}}),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        config = resolve_scheme(str(path), ARCH, graphs[ARCH])
        assert config.scheme == scheme_of(str(path), ARCH) == "size0.5"
        changed = {unit.split(".", 1)[1]: bits for unit, bits in config.units.items() if bits != (8, 8)}
        assert changed == {"stage1.unit1.body.conv1.conv": (2, 2), "stage2.unit1.body.conv2.conv": (4, 4)}


def test_weights_and_inputs_may_differ(graphs):
    entries = _dictionary(graphs[ARCH], {}) | {"stage2.unit1.quant_act": 4, "stage2.unit1.quant_convbn1": 3}
    units = bit_config_of(entries, ARCH, "x", graphs[ARCH]).units
    assert units["features.stage2.unit1.body.conv1.conv"] == (3, 4)
    assert units["features.stage2.unit1.identity_conv.conv"] == (8, 4)


def test_mobilenet_has_names_of_its_own(graphs):
    blocks = [f"features.stage{s + 1}.unit{u + 1}" for s, count in enumerate((1, 2, 3, 7, 4)) for u in range(count)]
    entries = {"quant_input": [8, "hook"], "init_block": 8, "quant_act_int32": 16}
    for block in blocks:
        entries |= {f"{block}.{name}": 8 for name in ("quant_act", "quant_act1", "quant_act2")}
        entries |= {f"{block}.conv{i}": 8 for i in (1, 2, 3)} | {f"{block}.quant_act_int32": 16}
    entries |= {"quant_act_before_final_block": 6, "features.final_block": 5, "quant_act_int32_final": 16}
    entries |= {"quant_act_output": 8, "output": 8, "features.stage3.unit2.conv3": 4}
    config = bit_config_of(entries, "mobilenetv2_w1", "x", graphs["mobilenetv2_w1"])
    changed = {unit: bits for unit, bits in config.units.items() if bits != (8, 8)}
    assert changed == {"features.final_block.conv": (5, 6), "features.stage3.unit2.conv3.conv": (4, 8)}
    stray = {"features.stage4.unit5.conv1.bn": 8}
    with pytest.raises(HawqError, match=r"conv1\.bn' matches no unit; the nearest is 'features\.stage4\.unit5\.conv1"):
        bit_config_of(entries | stray, "mobilenetv2_w1", "x", graphs["mobilenetv2_w1"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"stage3.unit4.quant_convbn1": 8},
            r"'stage3\.unit4\.quant_convbn1' matches no unit; the nearest is 'features\.stage3\.unit\d\.body\.conv1",
        ),
        ({"stage1.unit1.quant_act7": 8}, r"quant_act7' matches no unit"),
        ({"quant_act_final": 8}, r"quant_act_final' matches no unit"),
        ({"stage1.unit1.quant_convbn2": None}, r"no weight bits for 1 units, first 'features\.stage1\.unit1\.body"),
        ({"stage1.unit1.quant_act1": None}, r"no input activation bits for 1 units, first 'features\.stage1\.unit1"),
        ({"features.stage1.unit1.body.conv1.conv": 4}, r"gives features\S+ 4 bits, another key 8"),
        ({"stage1.unit1.quant_convbn2": 9}, r"allowed are 1\.\.8"),
        ({"stage1.unit1.quant_convbn2": "8"}, r"'8'; write bits or \[bits, \"hook\"\]"),
        ({"stage1.unit1.quant_convbn2": [8, "hok"]}, r"write bits or"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(graphs, change, problem):
    entries = {key: bits for key, bits in (_dictionary(graphs[ARCH], {}) | change).items() if bits is not None}
    with pytest.raises(HawqError, match=problem):
        bit_config_of(entries, ARCH, "x", graphs[ARCH])


def test_the_dictionary_of_another_network_is_refused(graphs, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"bit_config_resnet18_bops_0.5": {"quant_input": 8}}))
    with pytest.raises(UsageError, match=f"scheme of resnet18, the network is {ARCH}"):
        resolve_scheme(str(path), ARCH, graphs[ARCH])
    two = {f"bit_config_{ARCH}_{name}": {"quant_input": 8} for name in ("bops_0.5", "uniform8")}
    path.write_text(json.dumps(two))
    with pytest.raises(HawqError, match=f"holds 2 schemes of {ARCH}.*keep exactly one"):
        resolve_scheme(str(path), ARCH, graphs[ARCH])
