"""Feed a training: the images of every optimisation step, whoever computes them and whenever it begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from hawq.data import ImageData
from hawq.distributed import World
from hawq.train.batch import Batch
from hawq.train.config import TrainConfig

__all__ = ["Feed"]


@dataclass(frozen=True)
class Feed:
    """Give the batches of an epoch.

    The images of a step are a function of seed, epoch and step alone; every process takes each `world.size`-th of them.

    Attributes:
        data: images.
        config: of training.
        device: where the batches go.
        workers: threads that decode images.
        world: the processes that share a step.
    """

    data: ImageData
    config: TrainConfig
    device: str = "cpu"
    workers: int = 0
    world: World = field(default_factory=World)

    @property
    def steps(self) -> int:
        """Optimisation steps of an epoch."""
        return -(-len(self.data.train) // self.config.step_images)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of the steps of an epoch, from one of them on."""
        config = self.config
        found = self.data.batches(
            "train", config.step_images, shuffle=True, augment=True, seed=config.seed, epoch=epoch, start=start,
            workers=self.workers,
        )  # fmt: skip
        for step, (images, labels) in enumerate(found, start=epoch * self.steps + start):
            batch = Batch(images, labels)
            if config.mixup is not None:
                batch = config.mixup(batch, config.seed, step)
            yield batch[self.world.rank :: self.world.size].to(self.device, config.memory_format)

    def test(self, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test images with their labels."""
        for images, labels in self.data.batches("test", batch_size, workers=self.workers):
            yield images.to(self.device), labels

    def calibration(self, images: int, batch_size: int) -> Iterator[Tensor]:
        """Yield training images, drawn from the seed and not varied."""
        for batch, _ in self.data.batches(
            "train", batch_size, shuffle=True, seed=self.config.seed, limit=images, workers=self.workers
        ):
            yield batch.to(self.device)
