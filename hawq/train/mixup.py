"""Mix every image with another one of its batch."""

from dataclasses import dataclass

import numpy as np
import torch

from hawq.errors import UsageError
from hawq.train.batch import Batch

__all__ = ["Mixup"]


@dataclass(frozen=True)
class Mixup:
    """share * image + (1 - share) * partner, labels alike, share ~ Beta(alpha, alpha), one a batch (1710.09412).

    Attributes:
        alpha: above 0; small values leave most images nearly alone.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Check alpha.

        Raises:
            UsageError: it is not positive.
        """
        if not self.alpha > 0:
            raise UsageError(f"mixup with alpha {self.alpha:g}: give a number above 0, for example 0.2")

    def __call__(self, batch: Batch, seed: int, number: int) -> Batch:
        """Return the mixed batch; share and partners follow from seed and number of the batch alone."""
        generator = np.random.default_rng((seed, number))
        share = float(generator.beta(self.alpha, self.alpha))
        partners = torch.from_numpy(generator.permutation(len(batch)))
        images = batch.images.lerp(batch.images[partners], 1 - share)
        return Batch(images, batch.labels, batch.labels[partners], share)
