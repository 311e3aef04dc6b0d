"""Training: schedules, the loop, resuming, and calibration alone."""

import contextlib
from dataclasses import replace

import pytest
import torch
from networks import SIZE, build, images

from hawq.checkpoint import read_checkpoint
from hawq.data.image_data import ImageData
from hawq.data.preprocessing import Preprocessing
from hawq.data.splits import Augment, MemorySplit
from hawq.errors import HawqError, UsageError
from hawq.evaluation import accuracy
from hawq.graph.trace import trace
from hawq.qat.checkpoint import load_quantized
from hawq.quantizers import QuantOptions
from hawq.schemes import uniform
from hawq.train.begin import Beginning
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed
from hawq.train.quantized import QuantizedRun, train_quantized
from hawq.train.schedules import Cosine
from hawq.train.trainer import Forget, Trainer


class Silent:
    def step(self, report):
        pass

    def epoch(self, row):
        pass


@contextlib.contextmanager
def silent():
    yield Silent()


def tiny_data(count=48):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    pixels = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), 0, labels, :] = 255  # a bright row tells the class
    split = MemorySplit(pixels, labels)
    return ImageData("tiny", split, split, 10, Preprocessing(SIZE, None, (0.5,) * 3, (0.5,) * 3), Augment.SHIFT)


def linear():
    """Return a linear classifier of the tiny images."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 10))


def quantized(graph, folder, **changes):
    config = TrainConfig(epochs=2, lr=0.01, batch_size=16, schedule=Cosine())
    return QuantizedRun(Beginning(uniform("net", graph, 4), QuantOptions()), replace(config, **changes), folder)


def resumed(run, checkpoint, ranges=False):
    """Return the same run from a checkpoint, or from the beginning where there is none."""
    return replace(run, beginning=replace(run.beginning, resume=checkpoint, ranges=ranges))


def test_accuracy_counts_the_highest_and_the_five_highest():
    logits = torch.eye(8)[[0, 1, 2, 3]] + torch.linspace(0, 0.1, 8)  # other classes rank 7, 6, 5, ...
    result = accuracy(lambda _: logits, [(torch.zeros(4, 1), torch.tensor([0, 7, 3, 0]))])
    assert (result.top1, result.top5, result.images) == (25.0, 50.0, 4)
    assert result.predictions.tolist() == [0, 1, 2, 3]


def test_a_loss_that_is_not_finite_stops_with_advice():
    model = linear()
    model[1].weight.data.fill_(float("nan"))
    trainer = Trainer(model, Feed(tiny_data(), TrainConfig(epochs=1, lr=0.1)))
    with pytest.raises(HawqError, match=r"the loss is nan, at epoch 0, step 0; .* lower --lr"):
        trainer.run(Forget())


def test_the_same_command_twice_gives_the_same_integers(graph, tmp_path):
    programs = [train_quantized(quantized(graph, tmp_path / n), graph, tiny_data(), silent)[0].lower() for n in "ab"]
    assert programs[0].ops == programs[1].ops
    assert all(tensor.equal(programs[1].tensors[name]) for name, tensor in programs[0].tensors.items())


def test_zero_epochs_calibrate_alone_and_the_checkpoint_gives_the_same_integers(graph, tmp_path):
    run = quantized(graph, tmp_path, epochs=0)
    model, _ = train_quantized(run, graph, tiny_data(), silent)
    assert model.unit("conv1").weight.equal(graph.tensors["conv1.weight"])
    restored = load_quantized(tmp_path / "best.pt", graph)
    assert restored(images(3)).equal(model(images(3)))


def test_a_checkpoint_of_another_network_is_refused(graph, tmp_path):
    train_quantized(quantized(graph, tmp_path, epochs=0), graph, tiny_data(), silent)
    with pytest.raises(HawqError, match="gives no bits for 5 units"):
        load_quantized(tmp_path / "best.pt", trace(build("Branches"), (3, SIZE, SIZE)))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_checkpoint_of_another_scheme_gives_its_weights(graph, tmp_path, ranges):
    run = quantized(graph, tmp_path / "four", epochs=1)
    four, _ = train_quantized(run, graph, tiny_data(), silent)
    eight_bits = replace(run.beginning, bits=uniform("net", graph, 8))
    other = replace(run, beginning=eight_bits, folder=tmp_path / "eight", config=replace(run.config, epochs=0))
    eight, _ = train_quantized(resumed(other, tmp_path / "four" / "best.pt", ranges), graph, tiny_data(), silent)
    assert eight.bits.scheme == "uniform8"
    assert not eight.unit("conv1").weight.equal(graph.tensors["conv1.weight"])
    for name in graph.units:
        assert eight.unit(name).weight.equal(four.unit(name).weight)
    assert all(q.high.equal(four.stored[name].high) for name, q in eight.stored.items()) == ranges


def test_start_epoch_takes_the_schedule_from_there(graph, tmp_path):
    run = quantized(graph, tmp_path / "late", epochs=3)
    train_quantized(replace(run, start_epoch=2), graph, tiny_data(), silent)
    rows = read_checkpoint(tmp_path / "late" / "checkpoint.pt")["history"]
    assert [row["epoch"] for row in rows] == [3]
    assert rows[0]["lr"] == run.config.rate(8, 3) < run.config.rate(2, 3)


def test_an_epoch_may_be_evaluated_several_times(graph, tmp_path):
    run = quantized(graph, tmp_path, epochs=1, evaluations=2)
    _, result = train_quantized(run, graph, tiny_data(), silent)
    body = read_checkpoint(tmp_path / "checkpoint.pt")
    rows = body["history"]
    assert [row["epoch"] for row in rows] == [2 / 3, 1]  # three steps: after ceil(3 / 2) and at the end
    assert body["best"] == max(row["top1"] for row in rows) == result.top1
    assert rows[0]["loss"] != rows[1]["loss"]
    log = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [float(line.split(",")[0]) for line in log[1:]] == [2 / 3, 1]
    with pytest.raises(UsageError, match="--evaluate-times 0 is not allowed"):
        quantized(graph, tmp_path, evaluations=0)


def test_features_are_written_after_the_step_that_is_asked_for(graph, tmp_path):
    train_quantized(replace(quantized(graph, tmp_path), features_at=4), graph, tiny_data(), silent)
    assert [path.name for path in tmp_path.glob("features-*")] == ["features-4.safetensors"]


def test_a_long_gradient_is_shortened_to_the_limit():
    moves = []
    for limit in (None, 0.25, 100.0):
        model = linear()
        start = torch.cat([p.detach().flatten() for p in model.parameters()])
        config = TrainConfig(epochs=1, lr=1.0, weight_decay=0.0, clip_norm=limit)
        Trainer(model, Feed(tiny_data(), config)).run(Forget())
        moves.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - start)
    assert 1 < moves[0].norm() < 100
    assert torch.allclose(moves[1], moves[0] / moves[0].norm() * 0.25, atol=1e-5)
    assert torch.equal(moves[2], moves[0])
