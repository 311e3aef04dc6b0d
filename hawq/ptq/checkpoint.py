"""Keep a network that was quantized without training as a checkpoint that every command reads."""

from collections.abc import Sequence
from pathlib import Path

from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.errors import HawqError, UsageError
from hawq.qat.checkpoint import describe
from hawq.qat.model import QuantizedModel

__all__ = ["check_replaceable", "save_quantized"]


def check_replaceable(path: Path) -> None:
    """Check that a file may be written: that there is none, or that it holds no training.

    Raises:
        UsageError: it holds a trained network.
    """
    try:
        trained = path.exists() and "count" in read_checkpoint(path)
    except HawqError:
        return  # torn: nothing is lost
    if trained:
        raise UsageError(f"{path} holds a trained network: give another --run-dir, or --overwrite to lose it")


def save_quantized(path: Path, model: QuantizedModel, methods: Sequence[str]) -> None:
    """Write a checkpoint.

    Args:
        path: of the file.
        model: quantized.
        methods: that made it, by name, in the order of use.
    """
    write_checkpoint(path, {**describe(model), "methods": list(methods)})
