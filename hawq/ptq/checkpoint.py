"""Keep a network that was quantized without training as a checkpoint that every command reads."""

from collections.abc import Sequence
from pathlib import Path

from hawq.checkpoint import read_checkpoint, write_checkpoint
from hawq.errors import HawqError, UsageError
from hawq.qat.checkpoint import describe
from hawq.qat.model import QuantizedModel

__all__ = ["save_quantized"]


def save_quantized(path: Path, model: QuantizedModel, methods: Sequence[str], *, overwrite: bool = False) -> None:
    """Write a checkpoint.

    Args:
        path: of the file.
        model: quantized.
        methods: that made it, by name, in the order of use.
        overwrite: replace a file that holds a trained network, too.

    Raises:
        UsageError: the file holds a trained network.
    """
    if not overwrite and _is_trained(path):
        raise UsageError(f"{path} holds a trained network: give another --run-dir, or --overwrite to lose it")
    write_checkpoint(path, {**describe(model), "methods": list(methods)})


def _is_trained(path: Path) -> bool:
    try:
        return path.exists() and "count" in read_checkpoint(path)
    except HawqError:
        return False  # torn: nothing is lost
