"""Sum up which classes a network confuses."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from hawq.evaluation import Accuracy

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Read the quality of a classifier off its predictions.

    Precision, recall and F1 are means over the classes that occur, each class with the same weight.

    Attributes:
        accuracy: of the classifier, with all predictions and labels.
    """

    accuracy: Accuracy

    @cached_property
    def classes(self) -> list[int]:
        """Every class that is shown or predicted, in rising order."""
        return sorted({*self.accuracy.labels.tolist(), *self.accuracy.predictions.tolist()})

    @cached_property
    def confusion(self) -> np.ndarray:
        """Images by class shown (rows) and class predicted (columns), int64, (classes, classes)."""
        return np.asarray(confusion_matrix(*self._pair, labels=self.classes))

    @property
    def _pair(self) -> tuple[Tensor, Tensor]:
        return self.accuracy.labels, self.accuracy.predictions

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """Return class shown, class predicted and images of the pairs with the most images, mistakes only."""
        wrong = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = (divmod(int(index), len(self.classes)) for index in order)
        return [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]

    def to_json(self) -> dict[str, Any]:
        """Return the figures: percents, precision, recall and F1 in 0..1."""
        precision, recall, f1, _ = precision_recall_fscore_support(*self._pair, average="macro", zero_division=0)
        return {
            "top1": self.accuracy.top1,
            "top5": self.accuracy.top5,
            "images": self.accuracy.images,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
        }
