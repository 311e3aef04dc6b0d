"""Hold a data set and hand out its batches, the same ones on every machine and with any number of workers."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hawq.data.preprocessing import Preprocessing
from hawq.data.splits import Augment, Split, Targets
from hawq.errors import UsageError
from hawq.task import Task

__all__ = ["ImageData"]


@dataclass(frozen=True)
class ImageData:
    """A data set.

    Attributes:
        name: of the kind of data set.
        train: images to train and calibrate on.
        test: images to measure on.
        num_classes: number of labels.
        preprocessing: how pixels become the network's input.
        augment: how training images are varied.
        class_names: by label, None where the data set does not tell.
        task: whether the images come with labels, masks or boxes.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    preprocessing: Preprocessing
    augment: Augment
    class_names: tuple[str, ...] | None = None
    task: Task = Task.CLASSIFICATION

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        epoch: int = 0,
        limit: int | None = None,
        start: int = 0,
        wanted: Callable[[int], bool] = lambda index: True,
        raw: bool = False,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Targets]]:
        """Yield batches that depend on nothing but the arguments.

        Args:
            split: `train` or `test`.
            batch_size: images per batch; the last may have fewer.
            shuffle: draw the order from (seed, epoch).
            augment: vary the images as the data set does for training, from (seed, epoch).
            seed: of order and variation.
            epoch: of order and variation.
            limit: images at most.
            start: batches to leave out at the beginning; they are not decoded.
            wanted: tells from its index whether a batch is yielded; the others are not decoded either.
            raw: yield uint8 pixels instead of normalised float32.
            workers: threads that decode ahead.

        Yields:
            Images, (n, 3, size, size), and what they show.

        Raises:
            UsageError: an unknown split, or a number that is too small.
            HawqError: a file cannot be decoded.
        """
        _check_request(split, batch_size, limit, workers)
        source = self.train if split == "train" else self.test
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(source), generator=generator) if shuffle else torch.arange(len(source))
        seeds = torch.randint(0, 2**62, (len(source),), generator=generator)
        kind = self.augment if augment else Augment.NONE

        def load(indices: Tensor) -> tuple[Tensor, Targets]:
            pixels = source.pixels(indices, kind, seeds[indices])
            return pixels if raw else self.preprocessing.normalise(pixels), source.targets(indices)

        found = order[:limit].split(batch_size) if limit != 0 else ()
        chunks = [chunk for index, chunk in enumerate(found) if index >= start and wanted(index)]
        return _ahead(load, chunks, workers) if workers else map(load, chunks)

    def names_of(self, logits: int) -> tuple[str, ...] | None:
        """Return the class names of a network's logits; None where they are unknown, or the classes are others."""
        return self.class_names if self.class_names is not None and len(self.class_names) == logits else None

    def subset(self, percentage: float, seed: int) -> "ImageData":
        """Return the data set with a fraction of the training images, 0..1, at least one, drawn from the seed.

        Raises:
            UsageError: a fraction outside 0..1.
        """
        if not 0 <= percentage <= 1:
            raise UsageError(f"data percentage {percentage}: give a fraction of the training set, 0..1")
        count = max(1, round(percentage * len(self.train)))
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return replace(self, train=self.train.select(order[:count].sort().values))


def _check_request(split: str, batch_size: int, limit: int | None, workers: int) -> None:
    if split not in ("train", "test"):
        raise UsageError(f"split {split!r}: allowed are train and test")
    if batch_size < 1 or workers < 0 or (limit is not None and limit < 0):
        raise UsageError(f"batch size {batch_size}, limit {limit}, workers {workers}: need at least 1, 0 and 0")


def _ahead(
    load: Callable[[Tensor], tuple[Tensor, Targets]], chunks: list[Tensor], workers: int
) -> Iterator[tuple[Tensor, Targets]]:
    """Load in threads, at most two batches a worker ahead, and yield in order."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[tuple[Tensor, Targets]]] = deque()
        for chunk in chunks:
            pending.append(pool.submit(load, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
