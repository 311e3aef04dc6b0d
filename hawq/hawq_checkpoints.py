"""Read checkpoints that HAWQ's `quant_train.py` saved, and float networks in its wrapping.

HAWQ keeps `{epoch, arch, state_dict, best_acc1, optimizer}`. The state dict names its quantized modules as bit configs
do (`hawq.hawq_names`); behind a module's name comes

    conv.weight, bn.running_mean, ...      of a convolution with its batch norm
    weight, bias                           of the classifier
    x_min, x_max                           of an activation: what the running range has come to
    act_scaling_factor, weight_integer...  what HAWQ computes from those in every forward pass: not read

A range says nothing of bits, so it serves here although HAWQ places its codes elsewhere. Sums before an addition have
no range there: HAWQ requantizes accumulators. They, and whatever a file lacks, keep their calibration.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hawq.errors import HawqError
from hawq.graph.ir import Conv2d, FloatGraph, Linear, Norm
from hawq.graph.structure import Domain, find_domains
from hawq.hawq_names import HawqNames, KeyKind, key_kind
from hawq.quantizers.minmax import MinMaxActivation
from hawq.state_dicts import copy_state, read_torch_file, state_dict_of

if TYPE_CHECKING:
    from hawq.qat.model import QuantizedModel

__all__ = ["FileKind", "HawqCheckpoint", "Range", "fill", "read_hawq_checkpoint", "set_ranges"]

_WEIGHTS = re.compile(r"(?P<module>.+?)\.(?P<field>((conv|bn)\.)?(weight|bias|running_mean|running_var))")
_DERIVED = re.compile(r".*(_scaling_factor|_integer|num_batches_tracked)")
_SLICES = frozenset({"convbn_scaling_factor", "fc_scaling_factor", "weight_integer", "bias_integer"})


class FileKind(Enum):
    """What a state dict holds. FLOAT: a network under its own names. QUANTIZED: HAWQ's modules, ranges included."""

    FLOAT = "float"
    QUANTIZED = "quantized"


@dataclass(frozen=True)
class Range:
    """Lowest and highest real value that an activation's codes cover."""

    low: float
    high: float


@dataclass(frozen=True)
class HawqCheckpoint:
    """Hold a file of HAWQ's in our names.

    Attributes:
        path: the file.
        kind: what it holds.
        epoch: epochs that were trained.
        tensors: float weights and batch norms by the network's state-dict names.
        stored: domain root -> range of the codes it is kept in.
        read: domain root -> range of the codes in which units read a residual stream.
        unknown: keys that mean nothing in this network.
        missing: tensors of the network that the file lacks.
    """

    path: Path
    kind: FileKind
    epoch: int
    tensors: Mapping[str, Tensor]
    stored: Mapping[str, Range]
    read: Mapping[str, Range]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]


def read_hawq_checkpoint(path: Path, graph: FloatGraph) -> HawqCheckpoint:
    """Read a training checkpoint of HAWQ's, or a float network's state dict, bare or wrapped alike.

    Args:
        path: `checkpoint.pth.tar`, `model_best.pth.tar` or a file of weights.
        graph: the network whose names are wanted.

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, holds more than plain values, or only the integers of an evaluation.
    """
    path = Path(path)
    document = read_torch_file(path)
    if isinstance(document, Mapping) and document.keys() >= _SLICES:
        raise HawqError(
            f"{path} holds only the integers of HAWQ's last evaluation, which cannot be trained on; give the "
            "checkpoint.pth.tar or model_best.pth.tar that lies beside it"
        )
    state = state_dict_of(document, path)
    epoch = document.get("epoch") if isinstance(document, Mapping) else None
    reader = _Reader(graph)
    kind = FileKind.QUANTIZED if any(key.endswith(".x_max") for key in state) else FileKind.FLOAT
    if kind is FileKind.QUANTIZED:
        reader.read_quantized(state)
    else:
        reader.read_float(state)
    return HawqCheckpoint(
        path=path,
        kind=kind,
        epoch=epoch if isinstance(epoch, int) else 0,
        tensors=reader.tensors,
        stored=reader.stored,
        read=reader.read,
        unknown=tuple(reader.unknown),
        missing=tuple(name for name in _network_tensors(graph) if name not in reader.tensors),
    )


def fill(graph: FloatGraph, checkpoint: HawqCheckpoint) -> None:
    """Copy the float weights and batch norms into a network, in place, before it is quantized.

    Raises:
        HawqError: one is missing, has another shape, or holds NaN or infinity. The network is as before.
    """
    own = {name: graph.tensors[name] for name in {**dict.fromkeys(_network_tensors(graph)), **checkpoint.tensors}}
    copy_state(own, checkpoint.tensors, checkpoint.path)


def set_ranges(model: "QuantizedModel", checkpoint: HawqCheckpoint) -> tuple[str, ...]:
    """Put the file's ranges over the calibrated ones.

    Args:
        model: of the network the checkpoint was read for, calibrated.
        checkpoint: read before.

    Returns:
        The tensors that keep their calibration: the file has no range for them, or their quantizer learns its steps.
    """
    found = [(root, model.stored_quantizer(root), checkpoint.stored.get(root)) for root in model.plan.stored]
    found += [(f"{root}.read", model.input_quantizer(root), checkpoint.read.get(root)) for root in model.plan.read]
    kept = []
    for name, quantizer, given in found:
        if given is not None and isinstance(quantizer, MinMaxActivation):
            quantizer.low.fill_(given.low)
            quantizer.high.fill_(given.high)
        else:
            kept.append(name)
    return tuple(kept)


class _Reader:
    """Sort the entries of a state dict."""

    def __init__(self, graph: FloatGraph) -> None:
        self._graph, self._domains, self._names = graph, find_domains(graph), HawqNames(graph)
        self.tensors: dict[str, Tensor] = {}
        self.stored: dict[str, Range] = {}
        self.read: dict[str, Range] = {}
        self.unknown: list[str] = []

    def read_float(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors that have the network's own names."""
        for key, tensor in state.items():
            if key in self._graph.tensors:
                self.tensors[key] = tensor
            elif not _DERIVED.fullmatch(key):
                self.unknown.append(key)

    def read_quantized(self, state: Mapping[str, Tensor]) -> None:
        """Translate HAWQ's names."""
        streams = {}
        for key, tensor in state.items():
            module, _, field = key.rpartition(".")
            if field == "x_min" or _DERIVED.fullmatch(key):
                continue
            if field != "x_max":
                self._weight(key, tensor)
            elif key_kind(module) is KeyKind.STREAM:
                streams[module] = self._range(state, module)
            else:
                self._input(module, self._range(state, module))
        for module, found in streams.items():  # last: where no stream is kept, what units read has set the range
            self._stream(module, found)

    def _weight(self, key: str, tensor: Tensor) -> None:
        match = _WEIGHTS.fullmatch(key)
        units = self._names.weights(match["module"]) if match else []
        name = _fields(self._graph, units[0]).get(match["field"].removeprefix("conv.")) if match and units else None
        if name is None:
            self.unknown.append(key)
        elif match and (match["field"] in ("weight", "bias") or name not in self.tensors):
            self.tensors[name] = tensor  # QuantConv2d also keeps the conv.weight it began with: its own one counts

    def _input(self, module: str, found: Range | None) -> None:
        units = self._names.readers(module)
        if not units:
            self.unknown.append(f"{module}.x_max")
        elif found is not None:
            domain = self._domains[self._graph.nodes[units[0]].inputs[0]]
            (self.read if domain.stream else self.stored)[domain.root] = _within(domain, found)

    def _stream(self, module: str, found: Range | None) -> None:
        tensor = self._names.stream(module)
        if tensor is None:
            self.unknown.append(f"{module}.x_max")
        elif found is not None:
            domain = self._domains[tensor]
            self.stored.setdefault(domain.root, _within(domain, found))

    @staticmethod
    def _range(state: Mapping[str, Tensor], module: str) -> Range | None:
        """Return an activation's range, or None where it never saw a batch."""
        low, high = (float(state.get(f"{module}.{end}", math.nan)) for end in ("x_min", "x_max"))
        return Range(low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _within(domain: Domain, found: Range) -> Range:
    """Return the range behind the ReLU, before which HAWQ observes its streams."""
    return found if domain.signed else Range(max(found.low, 0.0), max(found.high, 0.0))


def _fields(graph: FloatGraph, node: str) -> dict[str, str]:
    """Return HAWQ's name of each tensor of a unit or lone batch norm -> the network's name."""
    op = graph.nodes[node].op
    names: dict[str, str | None] = {}
    if isinstance(op, Conv2d | Linear):
        names |= {"weight": op.weight, "bias": op.bias}
    if isinstance(op, Conv2d | Linear | Norm) and op.norm is not None:
        norm = op.norm
        names |= {"bn.weight": norm.weight, "bn.bias": norm.bias}
        names |= {"bn.running_mean": norm.mean, "bn.running_var": norm.var}
    return {field: name for field, name in names.items() if name is not None}


def _network_tensors(graph: FloatGraph) -> Iterator[str]:
    """Yield the names of the tensors that the network computes with."""
    for node in graph.nodes:
        yield from _fields(graph, node).values()
