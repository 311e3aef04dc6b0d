"""Map real values to codes: uniform and learned quantizers of weights and activations, each in a file of its own."""

from hawq.quantizers import (  # noqa: F401  # they register themselves
    aciq,
    dorefa,
    fatnn,
    given,
    kl,
    kmeans,
    lq_nets,
    lsq,
    lsq_plus,
    minmax,
    mse,
    n2uq,
    pact,
    percentile,
    running,
    ternary,
    xnor,
    xnor_plus,
)
from hawq.quantizers.activation import ActivationQuantizer, UniformActivation
from hawq.quantizers.gradients import StepGradient
from hawq.quantizers.grid import ActivationGrid
from hawq.quantizers.normalise import WeightNorm
from hawq.quantizers.options import QuantOptions
from hawq.quantizers.registry import (
    ACTIVATION_QUANTIZERS,
    WEIGHT_QUANTIZERS,
    activation_quantizer,
    register_activation,
    register_weight,
    weight_quantizer,
)
from hawq.quantizers.surrogates import SignGradient
from hawq.quantizers.weight import WeightQuantizer

__all__ = [
    "ACTIVATION_QUANTIZERS",
    "WEIGHT_QUANTIZERS",
    "ActivationGrid",
    "ActivationQuantizer",
    "QuantOptions",
    "SignGradient",
    "StepGradient",
    "UniformActivation",
    "WeightNorm",
    "WeightQuantizer",
    "activation_quantizer",
    "register_activation",
    "register_weight",
    "weight_quantizer",
]
