"""Images distilled from batch norms: they match them, and a search on them needs no data."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
import typer
from pytorchcv.model_provider import get_model
from shared_data import cifar10, normalise, shared
from torch import nn
from typer.testing import CliRunner

from hawq.bitconfig import BitConfig, UnitBits
from hawq.cli.search import search
from hawq.cli.session import DataRequest, open_data
from hawq.data.distilled import distilled_data, distilled_preprocessing
from hawq.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from hawq.distill import DFQ, QUICK, ZEROQ, Divisor, Statistics, distill
from hawq.errors import HawqError, UsageError
from hawq.files import write_tensors
from hawq.graph.trace import trace
from hawq.models import InputSpec
from hawq.sensitivity import Sampling, measure

SHAPE = (3, networks.SIZE, networks.SIZE)
BOUNDS = (torch.full((3, 1, 1), -2.0), torch.full((3, 1, 1), 2.5))
NETWORK = """
from torch import nn

def tiny(num_classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

def bare(num_classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def _graph(name):
    return trace(networks.build(name), SHAPE)


@pytest.mark.parametrize("name", ["Residual", "Inverted", "Dense"])
@pytest.mark.parametrize("divisor", Divisor)
def test_the_loss_is_that_of_hooks_on_the_batch_norms(name, divisor):
    model, images = networks.build(name).double(), networks.images(3).double()
    entered = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda norm, inputs: entered.append((norm, inputs[0])))
    statistics = Statistics(trace(model, SHAPE), divisor)
    entered.clear()
    model(images)
    expected = _squares(images, torch.zeros(3), torch.ones(3)) / 3
    for norm, value in entered:
        squares = _squares(value, norm.running_mean, (norm.running_var + 1e-6).sqrt())
        expected += squares / (len(value) if divisor is Divisor.IMAGES else value.shape[1])
    assert statistics.terms == len(entered) + 1
    torch.testing.assert_close(float(statistics.loss(images)), expected)


def _squares(value, mean, std):
    found = value.detach().flatten(2).numpy()
    means, stds = found.mean(2), np.sqrt(found.var(2) + 1e-6)
    return float(((means - mean.numpy()) ** 2).sum() + ((stds - std.numpy()) ** 2).sum())


@pytest.mark.parametrize("recipe", [replace(ZEROQ, steps=60), replace(DFQ, steps=60, stop=None), QUICK])
def test_statistics_move_towards_those_of_the_batch_norms(recipe):
    model = networks.build("Residual").train()  # its batch norms remember smooth images, which can be reached
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model(nn.functional.interpolate(networks.images(64)[:, :, :8, :8], SHAPE[1:], mode="bilinear"))
    losses, steps = [], []

    def heard(step, total, loss):
        losses.append(loss)
        steps.append((step, total))

    images = distill(trace(model.eval(), SHAPE), 6, recipe, batch_size=6, bounds=BOUNDS, progress=heard)
    assert images.shape == (6, *SHAPE)
    assert images.dtype == torch.float32
    assert losses[-1] < losses[0] / 3
    assert steps[-1] == (recipe.steps, recipe.steps)
    if recipe.clamp:
        assert float(images.min()) >= -2
        assert float(images.max()) <= 2.5


def test_a_seed_gives_the_same_bytes_and_leaves_the_network_alone():
    graph = _graph("Dense")
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    recipe = replace(QUICK, steps=5)
    first, again, other = (distill(graph, 5, recipe, batch_size=2, seed=s, bounds=BOUNDS) for s in (3, 3, 4))
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert not torch.equal(first, other)
    assert not torch.equal(first[:2], first[2:4])
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors.items())
    assert all(tensor.grad is None for tensor in graph.tensors.values())


def test_a_batch_ends_early_when_its_loss_is_small():
    seen = []
    recipe = replace(ZEROQ, stop=1e9)
    distill(_graph("Residual"), 2, recipe, progress=lambda step, total, loss: seen.append(step))
    assert seen == []


def test_what_cannot_be_distilled_is_refused():
    with pytest.raises(UsageError, match="the network has no batch norm"):
        distill(_graph("Branches"), 2, ZEROQ)
    with pytest.raises(UsageError, match="give that range as bounds"):
        distill(_graph("Residual"), 2, QUICK)
    with pytest.raises(UsageError, match="0 images"):
        distill(_graph("Residual"), 0, ZEROQ)
    graph = _graph("Residual")
    broken = replace(graph, tensors={name: tensor * torch.nan for name, tensor in graph.tensors.items()})
    with pytest.raises(HawqError, match="diverged in step 1"):
        distill(broken, 2, ZEROQ)
    with pytest.raises(UsageError, match="give --size"):
        distilled_preprocessing("net.py:tiny", InputSpec(), {})
    with pytest.raises(UsageError, match="--data distilled: this command needs real images"):
        open_data("resnet20_cifar10", DataRequest("distilled"), 0)


def test_preprocessing_is_what_the_network_knows_and_the_user_says():
    known = InputSpec(224, (0.5, 0.5, 0.5), (0.4, 0.4, 0.4), "bicubic", 0.9)
    found = distilled_preprocessing("net", known, {"std": (0.3, 0.3, 0.3)})
    assert (found.size, found.resize, found.mean, found.std) == (224, 249, (0.5,) * 3, (0.3,) * 3)
    assert distilled_preprocessing("net", InputSpec(32), {}).mean == IMAGENET_MEAN


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with networks and weights, and no data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    names: dict = {}
    exec(NETWORK, names)
    for name in ("tiny", "bare"):
        torch.manual_seed(0)
        write_tensors(tmp_path / f"{name}.safetensors", names[name]().state_dict())
    return tmp_path


def _search(name, *arguments):
    app = typer.Typer()
    app.command()(search)
    network = ["-a", f"net.py:{name}", "--weights", f"{name}.safetensors", "--data", "distilled", "--size", "8"]
    result = CliRunner().invoke(app, [*network, "-b", "8", "--run-dir", "run", *arguments])
    if isinstance(result.exception, HawqError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_a_search_needs_no_data_and_keeps_its_images(place):
    assert "64 images distilled from the weights" in _search("tiny").stderr
    path = BitConfig.default_path("net.py:tiny", "bops0.5")
    config = BitConfig.load(path)
    assert list(config.units) == ["0", "3", "6", "10"]
    kept = place / "run" / "distilled.safetensors"
    before, stamp, written = kept.read_bytes(), kept.stat().st_mtime_ns, path.read_bytes()
    _search("tiny")
    assert kept.stat().st_mtime_ns == stamp
    _search("tiny", "--seed", "1")
    assert kept.read_bytes() != before
    kept.write_bytes(b"torn")
    _search("tiny")
    assert (kept.read_bytes(), path.read_bytes()) == (before, written)


def test_a_search_without_data_needs_batch_norms(place):
    with pytest.raises(UsageError, match="no batch norm"):
        _search("bare")


RANK = {"hessian-activations": 0.9, "kl": 0.75}
"""Spearman's correlation of Omega on 64 distilled with Omega on 512 real images; measured: docs/distilled.md."""


@pytest.mark.slow
@pytest.mark.parametrize("metric", RANK)
def test_resnet20_ranks_its_units_as_on_real_images(tmp_path, metric):
    model = get_model("resnet20_cifar10")
    model.load_state_dict(torch.load(shared("weights/cifar10_resnet20_pytorchcv.pth"), weights_only=True))
    graph = trace(model.eval(), (3, 32, 32))
    preprocessing = distilled_preprocessing("resnet20_cifar10", InputSpec(32), {})
    data = distilled_data(graph, preprocessing, tmp_path / "distilled.safetensors")
    train, _, _ = cifar10()
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:512]
    real = normalise(train[drawn], IMAGENET_MEAN, IMAGENET_STD).split(32)
    with torch.no_grad():
        labelled = [(images, model(images).argmax(1)) for images in real]
    ranks = []
    for name, batches in (("distilled", data.batches("train", 32)), ("real", iter(labelled))):
        found = measure(graph, Sampling(metric, (4,)), batches, tmp_path / f"{name}.json")
        omega = torch.tensor([found.omega(unit, UnitBits(4, 4)) for unit in graph.units])
        ranks.append(omega.argsort().argsort().double())
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > RANK[metric]
