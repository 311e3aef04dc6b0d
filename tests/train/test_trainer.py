"""What each option of a training does to the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training import Silent, linear, quantized, silent, tiny_data

from hawq.checkpoint import read_checkpoint
from hawq.errors import UsageError
from hawq.evaluation import accuracy
from hawq.quantizers import ActivationQuantizer
from hawq.train.batch import Batch
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed
from hawq.train.mixup import Mixup
from hawq.train.precision import Precision
from hawq.train.quantized import train_quantized
from hawq.train.trainer import Forget, Trainer


class Follower(Silent):
    """Keep the weights after every step and the metrics of every epoch."""

    def __init__(self, model):
        self._model, self.weights, self.rows, self.losses = model, [], [], []

    def step(self, report):
        self.weights.append(torch.cat([p.detach().flatten() for p in self._model.parameters()]))
        self.losses.append(report.loss)

    def epoch(self, row):
        self.rows.append(row)


def train(model=None, data=None, **changes):
    model = linear() if model is None else model
    config = TrainConfig(**{"epochs": 1, "lr": 0.1, "batch_size": 16, **changes})
    trainer, follower = Trainer(model, Feed(data or tiny_data(), config)), Follower(model)
    trainer.run(Forget(), [follower])
    return trainer, follower


def test_accumulated_batches_are_one_step_of_all_their_images():
    _, whole = train(batch_size=32)
    _, pieces = train(batch_size=16, accumulate=2)
    _, small = train(batch_size=16)
    assert len(whole.weights) == len(pieces.weights) == 2  # 32 images, then the 16 that are left
    assert torch.allclose(whole.weights[-1], pieces.weights[-1], atol=1e-6)
    assert pieces.losses == pytest.approx(whole.losses, rel=1e-6)
    assert not torch.allclose(whole.weights[0], small.weights[0], atol=1e-3)


def test_mixup_is_the_formula_and_follows_from_seed_and_step():
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(8, 3, 4, 4, generator=generator), torch.arange(8) % 5)
    mixed = Mixup(0.4)(batch, 1, 7)
    partners = torch.tensor([int(mixed.partners[i] - batch.labels[i]) for i in range(8)])
    assert 0 < mixed.share < 1
    assert partners.any()
    drawn = np.random.default_rng((1, 7))
    assert mixed.share == drawn.beta(0.4, 0.4)
    order = torch.from_numpy(drawn.permutation(8))
    expected = mixed.share * batch.images + (1 - mixed.share) * batch.images[order]
    assert torch.allclose(mixed.images, expected, atol=1e-6)
    logits = torch.randn(8, 5, generator=generator)
    both = [F.cross_entropy(logits, labels) for labels in (batch.labels, batch.labels[order])]
    loss = F.cross_entropy(logits, mixed.targets(5))
    assert torch.allclose(loss, mixed.share * both[0] + (1 - mixed.share) * both[1])
    again, other = Mixup(0.4)(batch, 1, 7), Mixup(0.4)(batch, 1, 8)
    assert torch.equal(again.images, mixed.images)
    assert other.share != mixed.share


def test_training_mixes_and_is_another_one():
    _, plain = train(epochs=3)
    _, mixed = train(epochs=3, mixup=Mixup(1.0))
    assert not torch.allclose(plain.weights[0], mixed.weights[0], atol=1e-3)


def test_the_average_is_the_formula_and_is_what_is_evaluated():
    model = linear()
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    trainer, follower = train(model, average=0.75)
    for weights in follower.weights:
        expected = 0.75 * expected + 0.25 * weights
    kept = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.allclose(kept, expected, atol=1e-6)
    assert not torch.allclose(kept, follower.weights[-1], atol=1e-3)
    assert follower.rows[-1]["top1"] == accuracy(model, trainer.feed.test()).top1


def test_the_best_checkpoint_holds_the_averaged_weights_and_the_last_one_both(graph, tmp_path):
    run = quantized(graph, tmp_path, epochs=1, average=0.9)
    model, _ = train_quantized(run, graph, tiny_data(), silent)
    best, last = read_checkpoint(tmp_path / "best.pt"), read_checkpoint(tmp_path / "checkpoint.pt")
    name = "units.conv1.weight"
    assert torch.equal(best["model"][name], last["average"][name])
    assert torch.equal(model.state_dict()[name], last["average"][name])
    assert not torch.equal(last["model"][name], last["average"][name])
    assert all(torch.equal(best["model"][buffer], last["model"][buffer]) for buffer, _ in model.named_buffers())


def test_an_average_that_never_moves_is_refused():
    with pytest.raises(UsageError, match=r"at least 0 and less than 1"):
        TrainConfig(epochs=1, lr=0.1, average=1.0)


def test_patience_ends_a_training_that_gets_no_better_and_outlives_a_restart():
    trainer, follower = train(epochs=9, lr=0.0, patience=2)
    assert len(follower.rows) == 3  # the first is the best, two more bring nothing
    again = Trainer(linear(), trainer.feed)
    again.load_state_dict(trainer.state_dict())
    heard = Follower(again.model)
    again.run(Forget(), [heard])
    assert heard.rows == []


def test_what_layers_draw_follows_from_the_step():
    def dropping():
        return torch.nn.Sequential(torch.nn.Dropout(0.5), linear())

    _, first = train(dropping())
    torch.rand(5)
    _, second = train(dropping())
    assert torch.equal(first.weights[-1], second.weights[-1])
    _, other = train(dropping(), seed=1)
    assert not torch.equal(first.weights[-1], other.weights[-1])


@pytest.mark.parametrize(("precision", "dtype"), [(Precision.BF16, torch.bfloat16), (Precision.FP16, torch.float16)])
def test_float_layers_compute_in_half_and_quantizers_in_float32(graph, tmp_path, precision, dtype, monkeypatch):
    seen = set()
    convolution = F.conv2d

    def watched(*given, **named):
        result = convolution(*given, **named)
        if torch.is_grad_enabled():  # in training
            seen.add(result.dtype)
        return result

    monkeypatch.setattr(F, "conv2d", watched)

    def quantized_to(module, given, result):
        if isinstance(module, ActivationQuantizer) and module.training:
            outputs.add(result.dtype)

    outputs = set()
    hook = torch.nn.modules.module.register_module_forward_hook(quantized_to)
    run = quantized(graph, tmp_path / "half", precision=precision)
    model, _ = train_quantized(run, graph, tiny_data(), silent)
    hook.remove()
    assert seen == {dtype}
    assert outputs == {torch.float32}
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}
    for name in model.graph.nodes:
        quantizer = model.stored_quantizer(name)
        if quantizer is not None:
            assert quantizer.scale_and_zero_point()[0].dtype == torch.float32
    train_quantized(quantized(graph, tmp_path / "full"), graph, tiny_data(), silent)
    half, full = (read_checkpoint(tmp_path / name / "checkpoint.pt")["history"] for name in ("half", "full"))
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in full], rel=0.01)
    assert half[0]["loss"] != full[0]["loss"]


def test_fp16_scales_the_loss_and_keeps_the_scale(graph, tmp_path):
    run = quantized(graph, tmp_path, precision=Precision.FP16)
    train_quantized(run, graph, tiny_data(), silent)
    scaler = read_checkpoint(tmp_path / "checkpoint.pt")["scaler"]
    assert scaler["scale"] == 2.0**16
    assert scaler["_growth_tracker"] == 6


def test_channels_last_changes_the_order_of_the_elements_alone(graph, tmp_path):
    runs = [quantized(graph, tmp_path / str(last), channels_last=last) for last in (False, True)]
    plain, last = (train_quantized(run, graph, tiny_data(), silent)[0] for run in runs)
    weight = last.unit("conv2").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(weight, plain.unit("conv2").weight, atol=1e-3)
    assert last.lower().ops[0] == plain.lower().ops[0]


@pytest.mark.slow
def test_a_compiled_training_comes_to_the_same(graph, tmp_path):
    runs = [quantized(graph, tmp_path / str(on), compile=on, epochs=1) for on in (False, True)]
    plain, compiled = (train_quantized(run, graph, tiny_data(), silent)[0] for run in runs)
    assert torch.allclose(compiled.unit("conv2").weight, plain.unit("conv2").weight, atol=1e-3)


def test_what_cannot_be_compiled_is_said(graph, tmp_path, monkeypatch):
    def broken(*given, **named):
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda model: broken)
    with pytest.raises(Exception, match=r"cannot be compiled here .* leave --compile out"):
        train_quantized(replace(quantized(graph, tmp_path, compile=True)), graph, tiny_data(), silent)
