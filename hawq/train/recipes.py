"""Hold the training settings that are used when the user gives none."""

from dataclasses import replace

from hawq.bitconfig import BitConfig
from hawq.train.config import TrainConfig
from hawq.train.optimizers import SGD
from hawq.train.schedules import Cosine, OneCycle

__all__ = ["float_recipe", "keeps_statistics", "quantized_recipe"]

# 2011.10680: SGD, momentum 0.9, lr 1e-4, weight decay 1e-4, batch 128, lr times 0.1 every 30 epochs
_HAWQ = TrainConfig(epochs=90, lr=1e-4)

_FLOAT = {
    "digits": TrainConfig(
        epochs=8, lr=0.1, optimizer=SGD(nesterov=True), weight_decay=5e-4, batch_size=64, schedule=OneCycle()
    )
}

_QUANTIZED = {
    "digits": TrainConfig(epochs=3, lr=0.01, batch_size=64, schedule=Cosine()),
    "cifar10": TrainConfig(epochs=10, lr=0.01, schedule=Cosine()),
    "cifar100": TrainConfig(epochs=10, lr=0.01, schedule=Cosine()),
    "npz": TrainConfig(epochs=10, lr=0.01, schedule=Cosine()),
    "distilled": TrainConfig(epochs=0, lr=1e-4),  # too few images to train on: they calibrate
}


def float_recipe(data: str, seed: int) -> TrainConfig | None:
    """Return how a float network is trained on a data set, or None where that is not offered."""
    return replace(_FLOAT[data], seed=seed) if data in _FLOAT else None


def quantized_recipe(data: str) -> TrainConfig:
    """Return how a quantized network is fine-tuned on a data set."""
    return _QUANTIZED.get(data, _HAWQ)


def keeps_statistics(bits: BitConfig) -> bool:
    """Tell whether the float network's batch norm statistics hold at the bits of a scheme: above 2 bits they do."""
    return all(min(widths) > 2 for widths in bits.units.values())
