"""Train small networks on as many processes as torchrun starts: `shared_training.py FOLDER STOPPED`."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from networks import SIZE, build
from test_training import quantized, resumed, silent, tiny_data
from torch import Tensor

from hawq.distributed import World, world
from hawq.errors import HawqError
from hawq.graph.trace import trace
from hawq.quantizers import QuantOptions
from hawq.train.criterion import PLAIN
from hawq.train.mixup import Mixup
from hawq.train.optimizers import AdamW
from hawq.train.quantized import QuantizedRun, train_quantized

PIECES = 4
IMAGES = 42
"""Two steps of 16 images in pieces of 4, then one whose pieces have 4, 4 and 2: one process has nothing to do."""

FOLDED = (QuantOptions(), {"average": 0.9})
TRAININGS = {
    "folded": FOLDED,
    "statistics": (QuantOptions(fix_bn=False, act_range_momentum=-1), {"average": 0.9, "mixup": Mixup(0.4)}),
    "learned": (
        QuantOptions(weight_quantizer="lsq", act_quantizer="lsq", fix_bn=False),
        {"optimizer": AdamW(), "lr": 0.001, "clip_norm": 1.0},
    ),
}


class Watched:
    """Compute the usual loss, and in one piece of the training another one.

    Args:
        group: the processes.
        number: of the piece, counted over all of the training.
        instead: returns the loss there, given the usual one.
    """

    def __init__(self, group: World, number: int, instead: Callable[[Tensor], Tensor]) -> None:
        self._group, self._number, self._instead, self._own = group, number, instead, 0

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        loss = PLAIN(images, logits, labels)
        number, self._own = self._own * self._group.size + self._group.rank, self._own + 1
        return self._instead(loss) if number == self._number else loss


def network():
    torch.manual_seed(0)
    return trace(build("Residual"), (3, SIZE, SIZE))


def planned(graph, folder: Path, options: QuantOptions, changes: dict) -> QuantizedRun:
    run = quantized(graph, folder, batch_size=4, accumulate=PIECES, **changes)
    return replace(run, beginning=replace(run.beginning, options=options))


def train_all(folder: Path, stopped: Path | None = None) -> None:
    """Train TRAININGS; then one that is stopped, one that breaks, and one that goes on from `stopped`."""
    graph, data, group = network(), tiny_data(IMAGES), world()
    torch.set_num_threads(1)
    for name, (options, changes) in TRAININGS.items():
        train_quantized(planned(graph, folder / name, options, changes), graph, data, silent, group)

    def interrupt(loss: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    halted = planned(graph, folder / "stopped", *FOLDED)
    try:  # piece 5 is that of one process, in the second step, and not of the leader
        train_quantized(replace(halted, criterion=Watched(group, 5, interrupt)), graph, data, silent, group)
    except KeyboardInterrupt:
        (folder / f"stopped-{group.rank}").touch()
    broken = planned(graph, folder / "broken", *FOLDED)
    try:
        train_quantized(replace(broken, criterion=Watched(group, 7, lambda loss: loss / 0)), graph, data, silent, group)
    except HawqError as error:
        (folder / f"broken-{group.rank}").write_text(str(error))
    if stopped is not None:
        goes_on = resumed(planned(graph, folder / "resumed", *FOLDED), stopped)
        train_quantized(goes_on, graph, data, silent, group)


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), Path(sys.argv[2]))
