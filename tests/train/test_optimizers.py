"""What optimizers and parameter groups do to the parameters."""

import pytest
import torch
from networks import build
from test_training import linear, tiny_data

from hawq.errors import HawqError, UsageError
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed
from hawq.train.groups import Group, parameter_groups
from hawq.train.optimizers import OPTIMIZERS, AdamW, load_moments, moments
from hawq.train.trainer import Forget, Trainer


def _moves(epochs=1, **changes):
    """Return by how much one full-batch step an epoch moves weight and bias of a linear classifier."""
    model = linear()
    start = [p.detach().clone() for p in model.parameters()]
    config = TrainConfig(**{"epochs": epochs, "lr": 0.1, "weight_decay": 0.0, **changes})
    Trainer(model, Feed(tiny_data(), config)).run(Forget())
    return [p.detach() - before for p, before in zip(model.parameters(), start, strict=True)]


def test_the_first_step_of_adamw_is_the_rate_times_the_sign_and_decay_is_apart():
    sgd, plain = _moves(), _moves(optimizer=AdamW())
    assert torch.allclose(plain[1], sgd[1].sign() * 0.1, atol=1e-4)
    decayed = _moves(optimizer=AdamW(), weight_decay=0.5)
    assert torch.allclose(decayed[0] - plain[0], -0.1 * 0.5 * linear()[1].weight, atol=1e-6)


@pytest.mark.parametrize("text", ["sgd:momentum=0.5", "sgd:momentum=0.5,nesterov=true"])
def test_momentum_adds_its_share_of_the_step_before(text):
    """With gradients g0, g1: momentum moves by g0, then g1 + m g0; Nesterov by g0 + m g0, then g1 + m (g1 + m g0)."""
    model, seen = linear(), []
    optimizer = OPTIMIZERS.read(text).build(parameter_groups(model, 0.0, ()))
    for gradient in (1.0, -3.0):
        for group in optimizer.param_groups:
            group["lr"] = 1.0
        before = model[1].bias.detach().clone()
        model[1].bias.grad = torch.full_like(before, gradient)
        optimizer.step()
        seen.append(float((before - model[1].bias.detach())[0]))
    steps = {"sgd:momentum=0.5": [1.0, -2.5], "sgd:momentum=0.5,nesterov=true": [1.5, -4.25]}
    assert seen == pytest.approx(steps[text], abs=1e-6)


def test_a_group_has_its_own_rate_and_decay():
    plain, slower, decayed = (
        _moves(groups=tuple(map(Group.read, texts))) for texts in ([], ["*.bias:lr=0.25"], ["*.weight:wd=0.5"])
    )
    assert torch.equal(slower[0], plain[0])
    assert torch.allclose(slower[1], 0.25 * plain[1], atol=1e-7)
    assert torch.allclose(decayed[0] - plain[0], -0.1 * 0.5 * linear()[1].weight, atol=1e-6)
    assert torch.equal(decayed[1], plain[1])
    frozen = _moves(groups=(Group.read("*:lr=0"),))
    assert all(not moved.any() for moved in frozen)


def _decays(model, *texts, decay_small=True):
    found = parameter_groups(model, 1e-4, map(Group.read, texts), decay_small)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in found for p in group["params"]}


def test_quantizers_do_not_decay_unless_a_group_says_so():
    model = torch.nn.Module()
    for place in ("stored", "read", "units"):
        unit = torch.nn.Module()
        unit.weight, unit.quantizer = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.PReLU()
        setattr(model, place, torch.nn.ModuleDict({"a/b": unit}))
    decays = _decays(model)
    assert {name for name, decay in decays.items() if decay} == {"units.a/b.weight"}
    assert _decays(model, "read.*:wd=0.5")["read.a/b.weight"] == 0.5
    assert _decays(model, "units.*:wd=0.5", "units.a.b.weight:wd=0.25") == {
        **decays, "units.a/b.weight": 0.25, "units.a/b.quantizer.weight": 0.5}  # fmt: skip


def test_small_tensors_can_be_spared():
    model = build("Inverted")
    spared = {name for name, decay in _decays(model, decay_small=False).items() if not decay}
    assert spared == {name for name, p in model.named_parameters() if p.dim() == 1} | {"deep.weight"}
    assert not any(decay == 0 for decay in _decays(model).values())


@pytest.mark.parametrize("text", ["lr=0.1", "*.bias:", "*.bias:rate=1", "*.bias:lr=-1", ":lr=1"])
def test_wrong_groups_are_refused(text):
    with pytest.raises(UsageError, match="group"):
        Group.read(text)


def test_a_group_that_holds_nothing_names_what_there_is():
    with pytest.raises(UsageError, match=r"group steps\.\*:lr=1 holds no parameter; names are like 1\.weight, 1\.bias"):
        parameter_groups(linear(), 0.0, [Group.read("steps.*:lr=1")])


def test_moments_are_kept_by_name_whatever_the_groups():
    model = linear()
    first, regrouped, other = (
        OPTIMIZERS.read(kind).build(parameter_groups(model, 0.0, map(Group.read, texts)))
        for kind, texts in (("sgd", []), ("sgd", ["1.weight:lr=0.5"]), ("adamw", []))
    )
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    first.step()
    load_moments(regrouped, model, moments(first, model))
    for p in model.parameters():
        assert torch.equal(regrouped.state[p]["momentum_buffer"], first.state[p]["momentum_buffer"])
    assert sorted(group["multiple"] for group in regrouped.param_groups) == [0.5, 1.0]
    with pytest.raises(HawqError, match="was trained with SGD: resume with the same --optimizer"):
        load_moments(other, model, moments(first, model))
