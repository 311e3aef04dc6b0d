"""Lower an IntegerProgram to compiled libraries whose integers equal the reference executor's."""

from tvm_export import llvm  # noqa: F401  # registers its target
from tvm_export.build import CompiledModel, export, fingerprint, load
from tvm_export.cuda import backend as _cuda  # noqa: F401  # registers its target
from tvm_export.latency import Latency, measure
from tvm_export.verify import VerifyReport, verify

__all__ = ["CompiledModel", "Latency", "VerifyReport", "export", "fingerprint", "load", "measure", "verify"]
