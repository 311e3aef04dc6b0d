"""Networks come by name from four sources; weights fit or are refused with the reason."""

import re
import sys
from argparse import Namespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hawq.checkpoint import write_checkpoint
from hawq.errors import HawqError, UsageError
from hawq.models import InputSpec, create_model, input_spec, load_weights


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def factory(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Shape:\n    width: int = 3\n"
        "def plain():\n    return nn.Linear(Shape().width, 7)\n"
        "def sized(num_classes=5):\n    return nn.Linear(3, num_classes)\n"
        "def any_keyword(**options):\n    return nn.Linear(3, options.get('num_classes', 1) + options['pretrained'])\n"
        "def number():\n    return 3\n"
    )
    return path


def test_pytorchcv_names_need_no_prefix():
    model = create_model("mobilenet_wd4", num_classes=7)
    assert type(model).__module__.startswith("pytorchcv.")
    assert model.output.out_features == 7
    assert create_model("resnet20_cifar10", num_classes=100).output.out_features == 100
    assert not model.training
    assert create_model("pytorchcv:resnet20_cifar10").output.out_features == 10


def test_other_libraries():
    assert create_model("torchvision:squeezenet1_1", num_classes=3).classifier[1].out_channels == 3
    assert create_model("torchvision:inception_v3").AuxLogits is None
    pytest.importorskip("timm")
    assert create_model("timm:tf_efficientnet_lite0", num_classes=9).classifier.out_features == 9


def test_a_function_of_the_users_own(factory):
    assert create_model(f"{factory}:plain", num_classes=99).out_features == 7
    assert create_model(f"{factory}:sized").out_features == 5
    assert create_model(f"{factory}:sized", num_classes=4).out_features == 4
    assert create_model(f"{factory}:any_keyword", num_classes=4, pretrained=True).out_features == 5
    assert input_spec(f"{factory}:plain") == InputSpec()


def test_a_number_of_classes_the_network_refuses():
    with pytest.raises(UsageError, match="refuses num_classes=7"):
        create_model("resnet20_cifar10", num_classes=7)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("resnt18", "pytorchcv has no network 'resnt18'; similar: resnet18"),
        ("torchvision:resnet19", "similar: resnet1"),
        ("nonsense_without_neighbours_", "Other sources: torchvision:NAME"),
        ("tensorflow:resnet18", "unknown source 'tensorflow'"),
        ("nowhere.py:net", "nowhere.py is no Python file"),
    ],
)
def test_unknown_names(arch, words):
    for ask in (create_model, input_spec) if "nowhere" not in arch else (create_model,):
        with pytest.raises(UsageError, match=re.escape(words)):
            ask(arch)


def test_unknown_timm_names():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"similar: .*resnet18"):
        create_model("timm:resnet181")


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # import timm raises ImportError
    with pytest.raises(UsageError, match=re.escape("pip install 'hawq[timm]'")):
        create_model("timm:resnet18")


def test_faults_of_the_users_file(factory):
    for name, words in (("missing", "no function 'missing'"), ("number", "returned int")):
        with pytest.raises(UsageError, match=words):
            create_model(f"{factory}:{name}")
    with pytest.raises(UsageError, match="takes no argument `pretrained`"):
        create_model(f"{factory}:sized", pretrained=True)
    factory.write_text("def net(:\n")
    with pytest.raises(UsageError, match="SyntaxError"):
        create_model(f"{factory}:net")


def test_a_failed_download_names_the_cause_and_the_way_out(monkeypatch):
    import pytorchcv.model_provider

    def offline(name, **options):
        raise URLError("name or service not known")

    monkeypatch.setattr(pytorchcv.model_provider, "get_model", offline)
    with pytest.raises(HawqError, match=r"name or service not known.*--weights FILE") as caught:
        create_model("resnet18", pretrained=True)
    assert caught.value.exit_code == 1


def test_input_specs():
    assert input_spec("resnet18") == InputSpec(size=224)
    assert input_spec("inceptionv3") == InputSpec(size=299)
    assert input_spec("resnet20_cifar10") == InputSpec(size=32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert input_spec("torchvision:resnet18") == InputSpec(224, mean, std, "bilinear", 224 / 256)
    pytest.importorskip("timm")
    half = (0.5, 0.5, 0.5)
    assert input_spec("timm:tf_efficientnet_lite0") == InputSpec(224, half, half, "bicubic", 0.875)


WRITERS = {
    "safetensors": lambda state, path: save_file({k: v.contiguous() for k, v in state.items()}, path),
    "pth": torch.save,
    "pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "net.pt": lambda state, path: torch.save({"net": state, "acc": 93.0}, path),
    "parallel.pth": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "compiled.pth": lambda state, path: torch.save({f"_orig_mod.module.{k}": v for k, v in state.items()}, path),
    "inner.pth": lambda state, path: torch.save({k.replace("1.", "1.module."): v for k, v in state.items()}, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_weights_of_every_kind(net, tmp_path, kind):
    path = tmp_path / f"weights.{kind}"
    state = {name: torch.rand_like(t) if t.is_floating_point() else t + 5 for name, t in net.state_dict().items()}
    WRITERS[kind](state, path)
    load_weights(net, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_counters_of_batches_may_be_absent(net, tmp_path):
    state = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(net, tmp_path / "w.safetensors")


def test_weights_that_do_not_fit(net, tmp_path):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = {
        **net.state_dict(),
        **{f"extra.{i}": torch.zeros(1) for i in range(9)},
        "2.weight": torch.zeros(9, 4, 1, 1),
    }
    del state["0.weight"], state["1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(HawqError) as caught:
        load_weights(net, tmp_path / "w.pth")
    message = str(caught.value)
    assert "2 missing (0.weight, 1.bias)" in message
    assert "9 unexpected (extra.0, extra.1, extra.2, extra.3, ...)" in message
    assert "1 misshapen (2.weight (9, 4, 1, 1) instead of (2, 4, 1, 1))" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(net, tmp_path, value):
    state = dict(net.state_dict())
    state["1.running_var"] = torch.tensor([1.0, 1.0, value, 1.0])
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(HawqError, match=r"NaN or infinity in 1\.running_var"):
        load_weights(net, tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 9, 100, 0.5, 0.99])
def test_torn_files(net, tmp_path, suffix, keep):
    path = tmp_path / f"w.{suffix}"
    WRITERS[suffix](net.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(HawqError, match=re.escape(str(path))):
        load_weights(net, path)


def test_files_that_hold_something_else(net, tmp_path):
    path = tmp_path / "w.pth"
    for content in ([1, 2], {"epoch": 3}, {1: torch.zeros(1)}):
        torch.save(content, path)
        with pytest.raises(HawqError, match="no state dict"):
            load_weights(net, path)
    path.write_bytes(b"\x00\x01 no pickle at all")
    with pytest.raises(HawqError, match="cannot be read"):
        load_weights(net, path)


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda net: {"state_dict": net.state_dict(), "args": Namespace(lr=0.1)}, r"argparse\.Namespace"),
        (lambda net: {"state_dict": net.state_dict(), "best": np.float64(93.1)}, r"numpy\S*\.scalar"),
        (lambda net: net, r"torch\.nn\.modules\.container\.Sequential"),
    ],
)
def test_objects_beside_the_tensors_are_named_and_the_advice_works(net, tmp_path, monkeypatch, wrap, kind):
    torch.save(wrap(net), tmp_path / "w.pth")
    with pytest.raises(HawqError, match=rf"w\.pth holds a {kind}, and reading that may run code") as caught:
        load_weights(net, tmp_path / "w.pth")
    monkeypatch.chdir(tmp_path)
    exec(re.search('python -c "(.*)"', str(caught.value))[1], {})
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    nn.init.zeros_(net[0].weight)
    load_weights(net, tmp_path / "plain.pth")
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_a_checkpoint_of_hawq_is_no_float_network(net, tmp_path):
    write_checkpoint(tmp_path / "w.pt", {"model": net.state_dict()})
    with pytest.raises(HawqError, match=r"is a hawq-checkpoint of hawq.*--resume"):
        load_weights(net, tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_a_missing_file_is_wrong_usage(net, tmp_path, name):
    with pytest.raises(UsageError, match=f"{name} does not exist"):
        load_weights(net, tmp_path / name)


def test_weights_are_loaded_into_the_new_network(tmp_path):
    state = create_model("resnet20_cifar10").state_dict()
    torch.save(state, tmp_path / "w.pth")
    model = create_model("resnet20_cifar10", weights=tmp_path / "w.pth")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
