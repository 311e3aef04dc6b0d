"""The pieces of a step: each begins from the same state, and what they leave is put together in their order."""

import io
from copy import deepcopy

import pytest
import torch
from test_training import linear, tiny_data
from threads import on_each
from torch import nn

from hawq.distributed import World
from hawq.errors import HawqError, UsageError
from hawq.quantizers import ActivationGrid, QuantOptions, activation_quantizer
from hawq.quantizers.lsq import LsqActivation
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed
from hawq.train.merge import ObservedState
from hawq.train.mixup import Mixup
from hawq.train.pieces import Pieces
from hawq.train.trainer import Trainer

INPUTS = torch.randn(7, 5, 6, 4, 4, generator=torch.Generator().manual_seed(3)) + torch.linspace(-1, 1, 7).view(
    -1, 1, 1, 1, 1
)
"""Of 7 pieces."""


def activation(name, **options):
    return activation_quantizer(name)(4, ActivationGrid.SYMMETRIC, QuantOptions(**options))


class Starting(LsqActivation):
    """Find the step in the first step of a training that had no calibration."""

    def observe(self, value):
        if not self.seen:
            self.calibrate(value)
            self.seen.fill_(1)


class Odd(nn.Module):
    """Observe in every way there is, and leave parameters out: one always, two in the first pieces."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3).to(memory_format=torch.channels_last)
        self.moving = activation("minmax", act_range_momentum=0.9)
        self.widest = activation("minmax", act_range_momentum=-1)
        self.learned = Starting(4, ActivationGrid.SYMMETRIC, QuantOptions())
        self.never, self.sometimes = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(6, 1, 1))
        self.vanishing = nn.Parameter(torch.ones(()))

    def forward(self, x):
        scale, nothing = (self.sometimes, self.vanishing * -0.0) if x.mean() > 0 else (1, 0)
        value = self.widest(self.moving(self.norm(x) * scale))
        return self.learned(self.conv(value)).square().mean() + nothing


torch.manual_seed(0)
ODD = Odd()


def step(world, count=7):
    """Return a network after two steps of Pieces, its gradients and the losses."""
    model = deepcopy(ODD)
    pieces, losses = Pieces(model, world), []
    for shift in (0.0, 0.5):
        model.zero_grad()

        def compute(piece, shift=shift):
            loss = model(INPUTS[piece] + shift) / count
            loss.backward()
            return float(loss.detach())

        losses.append(pieces.run(count, compute))
    return model, losses


def contents(model, losses):
    """Return every bit of a step's result."""
    file = io.BytesIO()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save((dict(model.state_dict()), gradients, losses), file)
    return file.getvalue()


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_threads_in_any_number_leave_the_same_bits(size):
    alone = contents(*step(World()))
    assert [contents(*found) for found in on_each(size, step)] == [alone] * size


@pytest.mark.parametrize("size", [1, 3])
def test_what_a_parameter_lacks_stays_none(size):
    model, _ = on_each(size, step)[0]
    assert model.never.grad is None
    assert model.sometimes.grad is not None
    assert torch.signbit(model.vanishing.grad)  # the bits of -0.0 survive, too


def test_states_merge_by_their_rules():
    model, _ = step(World())
    first, *found = (deepcopy(ODD) for _ in range(8))
    for other, images in zip(found, INPUTS, strict=True):
        other(images)
    ObservedState(first).merge(ObservedState(first).read(), [ObservedState(other).read() for other in found])
    # nothing was observed before, so each piece has its own range and start
    for name in ("moving.low", "learned.step_size", "norm.running_mean"):
        values = torch.stack([_tensor(other, name).detach().double() for other in found])
        assert torch.equal(_tensor(first, name), (values.sum(0) / 7).float())
    assert first.widest.high == max(other.widest.high for other in found)
    assert first.widest.low == min(other.widest.low for other in found)
    assert first.norm.num_batches_tracked == 7
    assert model.norm.num_batches_tracked == 14


def _tensor(model, name):
    return {**dict(model.named_buffers()), **dict(model.named_parameters())}[name]


def test_a_moving_range_moves_by_the_mean_of_the_pieces():
    model, momentum = nn.Sequential(activation("minmax", act_range_momentum=0.9)), 0.9
    model[0].low, model[0].high = torch.tensor(-1.0), torch.tensor(1.0)
    model[0].seen.fill_(1)
    Pieces(model, World()).run(7, lambda piece: float(model(INPUTS[piece]).detach().mean()))
    lows, highs = INPUTS.flatten(1).amin(1).mean(), INPUTS.flatten(1).amax(1).mean()
    assert model[0].low == pytest.approx(-momentum + (1 - momentum) * float(lows), rel=1e-6)
    assert model[0].high == pytest.approx(momentum + (1 - momentum) * float(highs), rel=1e-6)


def test_what_does_not_change_keeps_its_bits():
    model = nn.BatchNorm2d(1000)
    model.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    state = ObservedState(model)
    before, expected = state.read(), model.running_mean.clone()
    for count in (3, 7, 10):
        state.merge(before, [before] * count)
        assert torch.equal(model.running_mean, expected)


def test_the_first_piece_that_fails_is_told_by_all():
    def work(world):
        def compute(piece):
            if piece in (2, 5):
                raise HawqError(f"piece {piece}")
            return 0.0

        with pytest.raises(HawqError) as found:
            Pieces(linear(), world).run(7, compute)
        return str(found.value)

    for size in (1, 3, 4):
        assert on_each(size, work) == ["piece 2"] * size


def test_processes_read_every_image_once_and_only_their_own():
    config = TrainConfig(epochs=1, lr=0.1, batch_size=4, accumulate=4, mixup=Mixup(0.4))
    data = tiny_data(42)
    whole = list(Feed(data, config).pieces(1, 1))
    assert [len(piece) for piece in whole] == Feed(data, config).sizes(1) + Feed(data, config).sizes(2)
    assert Feed(data, config).sizes(2) == [4, 4, 2]
    for size in (2, 4):
        parts = [list(Feed(data, config, world=World(rank, size)).pieces(1, 1)) for rank in range(size)]
        for number, piece in enumerate(whole):
            other = parts[number % size][number // size]
            assert torch.equal(piece.images, other.images)
            assert torch.equal(piece.partners, other.partners)
        assert sum(map(len, parts)) == len(whole)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "advice"),
    [
        (128, 1, r"4 processes .* the 1 piece.* give --batch-size 32 --accumulate 4: the same step of 128 images"),
        (32, 6, r"give --batch-size 24 --accumulate 8: the same step of 192 images in 8 pieces"),
        (25, 1, r"give --batch-size 25 --accumulate 4$"),
    ],
)
def test_a_step_that_cannot_be_shared_is_refused_with_one_that_can(batch_size, accumulate, advice):
    config = TrainConfig(epochs=1, lr=0.1, batch_size=batch_size, accumulate=accumulate)
    with pytest.raises(UsageError, match=advice):
        Trainer(linear(), Feed(tiny_data(), config, world=World(0, 4)))
