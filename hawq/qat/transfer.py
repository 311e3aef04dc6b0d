"""Begin a scheme where another one ended: layer-wise training changes the scheme step by step (2011.10680).

The order is `start_from`, then a calibration, then `carry_ranges`: what one model learned lies over what the other
measured. Optimizer, epochs and history begin anew.
"""

from dataclasses import replace

from torch import Tensor

from hawq.bitconfig import BitConfig
from hawq.qat.model import QuantizedModel
from hawq.quantizers import ActivationQuantizer, QuantOptions

__all__ = ["carry_ranges", "start_from"]


def start_from(
    old: QuantizedModel, bits: BitConfig, options: QuantOptions | None = None
) -> tuple[QuantizedModel, tuple[str, ...]]:
    """Return a model of another scheme with the weights and batch norms of `old`, yet to be calibrated.

    A weight quantizer whose bits and method stay the same keeps what it learned; another one begins from the weights.

    Args:
        old: of the same network, as a checkpoint holds it (`hawq.qat.checkpoint.load_quantized`).
        bits: of the new scheme.
        options: of the new model.

    Returns:
        The model, on the CPU, and the units of whose weight quantizers something learned was left behind.

    Raises:
        HawqError: the bit config does not fit the network.
    """
    weights = {node.op.weight: old.unit(name).weight.detach() for name, node in old.graph.units.items()}  # type: ignore[attr-defined]
    model = QuantizedModel(replace(old.graph, tensors={**old.graph.tensors, **weights}), bits, options)
    model.graph = old.graph  # the trained weights served only to begin quantizers
    left = []
    for name, spec in model.plan.weights.items():
        state, own = old.unit(name).state_dict(), model.unit(name).state_dict()
        same = spec == old.plan.weights[name]
        carried = {key: tensor for key, tensor in state.items() if _fits(tensor, own.get(key))}
        carried = {key: tensor for key, tensor in carried.items() if same or not key.startswith("quantizer.")}
        if len(carried) < len(state):
            left.append(name)
        model.unit(name).load_state_dict(own | carried)
    return model, tuple(left)


def carry_ranges(old: QuantizedModel, model: QuantizedModel) -> tuple[str, ...]:
    """Put what the activation quantizers of `old` found over the calibration of `model`.

    The range of a tensor says nothing of bits, so it is carried wherever both models keep one by the same rule; what a
    quantizer learned for a width is carried where width and grid stay the same.

    Args:
        old: of the same network.
        model: calibrated.

    Returns:
        The tensors that keep their calibration.
    """
    pairs = [(root, old.stored_quantizer(root), model.stored_quantizer(root)) for root in model.plan.stored]
    pairs += [(f"{root}.read", old.input_quantizer(root), model.input_quantizer(root)) for root in model.plan.read]
    kept = []
    for name, before, now in pairs:
        if before is not None and now is not None and _same_rule(before, now):
            now.load_state_dict(before.state_dict())
        else:
            kept.append(name)
    return tuple(kept)


def _same_rule(before: ActivationQuantizer, now: ActivationQuantizer) -> bool:
    if type(before) is not type(now):
        return False
    same_codes = (before.bits, before.grid) == (now.bits, now.grid)
    own = now.state_dict()
    fits = all(_fits(tensor, own.get(key)) for key, tensor in before.state_dict().items())
    return fits and (same_codes or now.carries_widths)


def _fits(tensor: Tensor, own: Tensor | None) -> bool:
    return own is not None and own.shape == tensor.shape
