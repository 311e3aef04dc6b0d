"""Write every feature map of a quantized network to a file, to be looked at."""

from pathlib import Path

import torch
from torch import Tensor

from hawq.files import write_tensors
from hawq.integer.ops import TensorType
from hawq.qat.model import QuantizedModel
from hawq.train.feed import Feed
from hawq.train.state import StepReport

__all__ = ["FeatureWriter", "write_features"]

_IMAGES = 16


def write_features(model: QuantizedModel, images: Tensor, folder: Path, step: int) -> Path:
    """Write the integers that a network computes for a batch, as it is at this point of its training.

    The file holds for every tensor of the lowered network, under its name T,

        T              codes, (N, C, H, W) or (N, F): int8 or uint8 up to 8 bits, int32 above
        T.scale        float32, (1,); per channel, (F,), for logits that are accumulators
        T.zero_point   int32, (1,)

    and real value = scale * (code - zero point). An accumulator inside the network, whose scales live in the
    thresholds that read it, has scale 1.

    Args:
        model: calibrated or trained, in any mode; it is not changed.
        images: float32, (N, C, H, W).
        folder: gets the file; it is created.
        step: optimisation steps done, which the file's name tells.

    Returns:
        The file, `features-<step>.safetensors`.

    Raises:
        HawqError: the model has no ranges yet, or holds NaN or infinity.
    """
    executor = model.evaluator(images.device)
    program = executor.program
    scales = {output.tensor: output.scale for output in program.outputs.values()}
    tensors: dict[str, Tensor] = {}
    for name, codes in executor.trace(images).items():
        kind = program.types[name]
        tensors[name] = codes.to(_dtype(kind))
        tensors[f"{name}.scale"] = scales.get(name, torch.tensor([kind.scale]))
        tensors[f"{name}.zero_point"] = torch.tensor([kind.zero_point], dtype=torch.int32)
    path = folder / f"features-{step}.safetensors"
    write_tensors(path, tensors)
    return path


class FeatureWriter:
    """Write every feature map of the first test images after one step of a training.

    Args:
        model: in training.
        feed: of the training.
        folder: gets the file.
        step: optimisation steps done, over all epochs.
    """

    def __init__(self, model: QuantizedModel, feed: Feed, folder: Path, step: int) -> None:
        self._model, self._feed, self._folder, self._step = model, feed, folder, step

    def step(self, report: StepReport) -> None:
        """Write the file if this is the step."""
        if report.done == self._step:
            images, _ = next(iter(self._feed.test(_IMAGES)))
            write_features(self._model, images, self._folder, report.done)

    def epoch(self, row: dict[str, float]) -> None:
        """Pass over it."""


def _dtype(kind: TensorType) -> torch.dtype:
    if kind.bits > 8:
        return torch.int32
    return torch.int8 if kind.signed else torch.uint8
