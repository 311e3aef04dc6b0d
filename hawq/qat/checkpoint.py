"""Describe a quantized model by plain values, and build it again from them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hawq.bitconfig import BitConfig, UnitBits, UnitQuantizers
from hawq.checkpoint import read_checkpoint
from hawq.errors import HawqError, reason
from hawq.graph.ir import FloatGraph
from hawq.qat.model import QuantizedModel
from hawq.qat.rewrites import rewrite
from hawq.quantizers import QuantOptions

__all__ = ["describe", "load_quantized", "restore"]


def describe(model: QuantizedModel) -> dict[str, Any]:
    """Return what a checkpoint must hold to build the model again, given its float graph."""
    return {
        "arch": model.bits.arch,
        "scheme": model.bits.scheme,
        "units": {name: list(bits) for name, bits in model.bits.units.items()},
        "quantizers": {name: list(named) for name, named in model.bits.quantizers.items()},
        "options": asdict(model.options),
        "rewrites": list(model.graph.rewrites),
        "model": model.state_dict(),
    }


def restore(body: Mapping[str, Any], graph: FloatGraph) -> QuantizedModel:
    """Return the model of a checkpoint, in evaluation mode.

    Args:
        body: holds the keys of `describe`.
        graph: of the same network, as it is traced.

    Raises:
        HawqError: the checkpoint belongs to another network.
    """
    try:
        units = {name: UnitBits(*bits) for name, bits in body["units"].items()}
        quantizers = {name: UnitQuantizers(*named) for name, named in body["quantizers"].items()}
        bits = BitConfig(body["arch"], body["scheme"], units, quantizers)
        model = QuantizedModel(rewrite(graph, body["rewrites"]), bits, QuantOptions(**body["options"]))
        model.load_state_dict(body["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise HawqError(f"the checkpoint does not fit the network ({reason(error)}); train it again") from error
    return model.eval()


def load_quantized(path: Path, graph: FloatGraph) -> QuantizedModel:
    """Read a checkpoint and return its model, in evaluation mode.

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, or belongs to another network.
    """
    return restore(read_checkpoint(path), graph)
