"""Write a network for ONNX Runtime and OpenVINO: in float32, and quantized as ONNX Runtime runs it fastest."""

from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["IMAGE", "count_ops", "write_float", "write_quantized"]

IMAGE = "image"
"""Name of the models' input."""


def write_float(model: Any, images: Any, path: Path) -> None:
    """Export a float network with the shape of its images fixed; batch norm stays to be folded.

    Args:
        model: in evaluation mode.
        images: float32, (N, 3, H, W).
        path: of the ONNX file.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is missing.
    """
    import onnx  # noqa: F401  # named when missing, where torch would only say that it cannot export
    import onnxscript  # noqa: F401
    import torch

    torch.onnx.export(model, (images,), str(path), dynamo=True, input_names=[IMAGE], external_data=False, verbose=False)


def write_quantized(source: Path, images: Any, path: Path) -> None:
    """Quantize a float model: u8 activations, s8 weights per output channel, QuantizeLinear/DequantizeLinear pairs.

    Batch norm is folded and shapes are inferred first. Every op that can be quantized is, residual additions,
    concatenations and pools too, so that each fuses into one integer op.

    Args:
        source: written by `write_float`.
        images: float32, (N, 3, H, W); ranges are their minimum and maximum.
        path: of the quantized ONNX file.

    Raises:
        ModuleNotFoundError: onnx or onnxruntime is missing.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Once(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([{IMAGE: images.numpy()}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        Once(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibration_providers=["CPUExecutionProvider"],
    )


def count_ops(path: Path) -> Counter[str]:
    """Return how often each op occurs in a model."""
    import onnx

    return Counter(node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node)
