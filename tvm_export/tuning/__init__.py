"""Search the plans of a network's layers on the machine that is to run them."""

from tvm_export.tuning.layers import Layer, layers
from tvm_export.tuning.log import TuningLog
from tvm_export.tuning.rig import NetworkRig
from tvm_export.tuning.search import Tuned, Tuning, tune, tuned

__all__ = ["Layer", "NetworkRig", "Tuned", "Tuning", "TuningLog", "layers", "tune", "tuned"]
