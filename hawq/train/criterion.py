"""Compute the loss that is trained on: cross entropy, alone or beside the distance to a teacher."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.errors import UsageError

__all__ = ["PLAIN", "Criterion", "CrossEntropy", "Distillation"]

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Turn images, (N, C, H, W), logits, (N, classes), and labels, (N,), into the loss, a scalar."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy, mean over the images.

    Attributes:
        smoothing: share of every label that is spread over all classes, 0..1 (1512.00567).
    """

    smoothing: float = 0.0

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)


PLAIN = CrossEntropy()
"""What is trained on unless something else is asked for."""


@dataclass(frozen=True)
class Distillation:
    """alpha T^2 KL(teacher_T || student_T) + (1 - alpha) CE (1503.02531), the divergence summed over the classes.

    Both softmaxes are taken of logits over T; T^2 keeps the gradients' size. The mean is over the images alone: the
    public code of HAWQ also divides by the number of classes, which all but switches the teacher off.

    Attributes:
        teacher: gives the float logits of images; no gradients flow through it.
        hard: loss of the labels.
        alpha: share of the teacher, 0..1.
        temperature: T, above 0.
    """

    teacher: Callable[[Tensor], Tensor]
    hard: CrossEntropy = PLAIN
    alpha: float = 0.95
    temperature: float = 6.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: alpha outside 0..1, or a temperature that is not positive.
        """
        if not 0 <= self.alpha <= 1 or not self.temperature > 0:
            raise UsageError(
                f"distillation with alpha {self.alpha} and temperature {self.temperature}: "
                "alpha lies in 0..1, the temperature above 0"
            )

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss.

        Raises:
            UsageError: teacher and student have different numbers of classes.
        """
        with torch.no_grad():
            taught = self.teacher(images)
        if taught.shape != logits.shape:
            raise UsageError(
                f"the teacher has {taught.shape[1]} classes and the network {logits.shape[1]}; "
                "choose another --teacher-arch"
            )
        soft = F.kl_div(
            (logits / self.temperature).log_softmax(1),
            (taught / self.temperature).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        hard = self.hard(images, logits, labels)
        return self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard
