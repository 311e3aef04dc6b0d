"""Map real values to codes: free functions for weights, a module with a running range for activations."""

from hawq.quantizers.activation import ActivationQuantizer
from hawq.quantizers.weight import quantize_weight, weight_scale

__all__ = ["ActivationQuantizer", "quantize_weight", "weight_scale"]
