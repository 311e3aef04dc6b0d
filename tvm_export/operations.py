"""Add operations to TVM that its vectorizer knows, and say what they come to before LLVM or CUDA sees them."""

from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import register_op_attr

__all__ = ["add_operation"]

_PURE = 1  # TVM's CallEffectKind


def add_operation(name: str, description: str | None, lower: Callable[[Any], Any]) -> None:
    """Add a pure operation.

    Args:
        name: `tirx.` and more.
        description: of what it computes.
        lower: returns an equal expression without the operation, given a call of it, scalar or vector.
    """
    tvm_ffi.get_global_func("ir.RegisterOp")(name, description)
    register_op_attr(name, "TVectorizable", True)
    register_op_attr(name, "TCallEffectKind", _PURE)
    tirx.op.register_intrin_lowering(name, "default", f=lower)
