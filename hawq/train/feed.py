"""Feed a training: the images of every optimisation step, whoever computes them and whenever it begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from hawq.data import ImageData
from hawq.distributed import World
from hawq.errors import UsageError
from hawq.task import Task
from hawq.train.batch import Batch
from hawq.train.config import TrainConfig

__all__ = ["Feed"]


@dataclass(frozen=True)
class Feed:
    """Give the batches of an epoch.

    A step consists of `config.accumulate` batches, its pieces; the last of an epoch may have fewer. The images of a
    piece are a function of seed, epoch and its place in the epoch alone. Every process decodes its own pieces only.

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

    def __post_init__(self) -> None:
        """Check that the images have labels.

        Raises:
            UsageError: they come with masks or boxes.
        """
        if self.data.task is not Task.CLASSIFICATION:
            raise UsageError(
                f"{self.data.name} is data for {self.data.task.value}, and training is for classification; quantize "
                "such a network with `hawq ptq`"
            )

    def check(self) -> None:
        """Check that every process gets as many pieces of a step.

        Raises:
            UsageError: the processes cannot share them evenly.
        """
        processes, pieces, images = self.world.size, self.config.accumulate, self.config.step_images
        if pieces % processes:
            enough = processes * -(-pieces // processes)
            whole = images % enough == 0
            size = images // enough if whole else self.config.batch_size
            raise UsageError(
                f"{processes} processes cannot share the {pieces} piece(s) of a step of {images} images evenly: give "
                f"--batch-size {size} --accumulate {enough}"
                + (f": the same step of {images} images in {enough} pieces" if whole else "")
            )

    @property
    def steps(self) -> int:
        """Optimisation steps of an epoch."""
        return -(-len(self.data.train) // self.config.step_images)

    def sizes(self, step: int) -> list[int]:
        """Return the images of every piece of a step.

        Args:
            step: of the epoch.
        """
        images = min(self.config.step_images, len(self.data.train) - step * self.config.step_images)
        return [min(self.config.batch_size, images - done) for done in range(0, images, self.config.batch_size)]

    def pieces(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield this process's pieces of all steps of an epoch, from one of the steps on."""
        config, first = self.config, start * self.config.accumulate
        # as a step has a multiple of `world.size` pieces, the owner of a piece is that of the batch in the epoch
        found = self.data.batches(
            "train", config.batch_size, shuffle=True, augment=True, seed=config.seed, epoch=epoch, start=first,
            wanted=self.world.owns, workers=self.workers,
        )  # fmt: skip
        number = epoch * self.steps * config.accumulate + first + self.world.rank
        for images, labels in found:
            batch = Batch(images, labels)
            if config.mixup is not None:
                batch = config.mixup(batch, config.seed, number)
            number += self.world.size
            yield batch.to(self.device, config.memory_format)

    def test(self, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's batches of the test images with their labels."""
        for images, labels in self.data.batches("test", batch_size, wanted=self.world.owns, workers=self.workers):
            yield images.to(self.device), labels

    def calibration(self, images: int, batch_size: int) -> Iterator[Tensor]:
        """Yield training images, drawn from the seed and not varied; every process gets all of them."""
        for batch, _ in self.data.batches(
            "train", batch_size, shuffle=True, seed=self.config.seed, limit=images, workers=self.workers
        ):
            yield batch.to(self.device)
