"""Define the result: IntegerProgram, its normative arithmetic, its exact reference executor and its certificate."""

from hawq.integer.certificate import Certificate, LayerBound, certify
from hawq.integer.execute import ReferenceExecutor, execute_op
from hawq.integer.ops import Output, TensorType
from hawq.integer.program import IntegerProgram

__all__ = [
    "Certificate",
    "IntegerProgram",
    "LayerBound",
    "Output",
    "ReferenceExecutor",
    "TensorType",
    "certify",
    "execute_op",
]
