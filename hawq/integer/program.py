"""Hold an IntegerProgram: typed ops and their constants; validate, write and read it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hawq.errors import HawqError, UsageError
from hawq.files import read_json, read_tensors, write_json, write_tensors
from hawq.integer.ops import OPS, Op, Output, TensorType
from hawq.integer.validate import validate
from hawq.outputs import only

__all__ = ["IntegerProgram"]

_FORMAT, _VERSION = "hawq-integer-program", 2
_OUTPUT_SCALE = "output_scale"
"""What follows the name of an output in the name of its scale."""


@dataclass(frozen=True)
class IntegerProgram:
    """Define the quantized network: the integers every backend must reproduce.

    Attributes:
        arch: name of the network.
        scheme: name of the bit config it was lowered with.
        ops: in execution order; the first is the input.
        tensors: constants, `<op name>.<constant>` -> tensor.
        outputs: what it returns, by name; a single result is called `logits`.
    """

    arch: str
    scheme: str
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    outputs: Mapping[str, Output]

    def __post_init__(self) -> None:
        """Check every rule of the integer semantics.

        Raises:
            HawqError: an op breaks one; the message names the op.
        """
        validate(self.ops, self.tensors, self.outputs)

    @property
    def types(self) -> dict[str, TensorType]:
        """Type of every tensor by name."""
        return {op.name: op.out for op in self.ops}

    @property
    def input(self) -> Op:
        """The op that turns the image into codes."""
        return self.ops[0]

    @property
    def output(self) -> Output:
        """The only output.

        Raises:
            HawqError: there are several.
        """
        return only(self.outputs, "this needs a program with one output")

    def constants(self, op: Op) -> dict[str, Tensor]:
        """Return the constants of one op by their short names; absent ones (an accumulator's shift) are left out."""
        named = {constant: self.tensors.get(f"{op.name}.{constant}") for constant in op.constants}
        return {constant: tensor for constant, tensor in named.items() if tensor is not None}

    def save(self, path: Path, **extra: Any) -> None:
        """Write `<path>` (JSON) and `<path stem>.safetensors`; `extra` is kept in the JSON (certificate, versions)."""
        ops = [{"kind": type(op).__name__, **dataclasses.asdict(op)} for op in self.ops]
        scales = {f"{name}.{_OUTPUT_SCALE}": output.scale for name, output in self.outputs.items()}
        outputs = {name: output.tensor for name, output in self.outputs.items()}
        write_tensors(path.with_suffix(".safetensors"), {**self.tensors, **scales})
        body = {"arch": self.arch, "scheme": self.scheme, "ops": ops, "outputs": outputs, **extra}
        write_json(path, _FORMAT, _VERSION, body)

    @classmethod
    def load(cls, path: Path) -> "IntegerProgram":
        """Read and validate a program written by `save`.

        Raises:
            UsageError: a file is missing.
            HawqError: a file is torn, or the program breaks a rule.
        """
        if not Path(path).is_file():
            raise UsageError(f"{path} does not exist; `hawq export` writes the integer program of a trained network")
        document = read_json(path, _FORMAT, _VERSION)
        tensors = read_tensors(Path(path).with_suffix(".safetensors"))
        try:
            ops = tuple(_op_from_json(entry) for entry in document["ops"])
            outputs = {
                name: Output(tensor, tensors.pop(f"{name}.{_OUTPUT_SCALE}"))
                for name, tensor in document["outputs"].items()
            }
            return cls(document["arch"], document["scheme"], ops, tensors, outputs)
        except (KeyError, TypeError, AttributeError) as error:
            raise HawqError(f"{path} is not a valid integer program ({error!r}); export it again") from error


def _op_from_json(entry: Mapping[str, Any]) -> Op:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    kind = fields.pop("kind")
    if kind not in OPS:
        raise HawqError(f"unknown op kind {kind!r}; known: {', '.join(sorted(OPS))}")
    out = dict(fields.pop("out"))
    return OPS[kind](out=TensorType(shape=tuple(out.pop("shape")), **out), **fields)
