"""`simulate-channels`, `simulate-bits`: activations with a range, and bits, for every channel (ACIQ, 1810.05723)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hawq.errors import HawqError
from hawq.graph.structure import pinned_units
from hawq.integer.ops import TensorType
from hawq.ptq.allocation import allocate_bits
from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Workbench
from hawq.quantizers.activation import ActivationQuantizer
from hawq.quantizers.density import Density

__all__ = ["ChannelActivation"]

_Widths = Callable[[Tensor, int], Tensor]
"""Bits of channels, given their spreads and the bits of the tensor."""


@register_method("simulate-channels", Stage.MODEL, needs_images=True)
def _simulate_channels(bench: Workbench) -> None:
    """Simulate activations with a range for every channel, as laplace finds it; no integer program can be made."""
    _replace(bench, torch.full_like)


@register_method("simulate-bits", Stage.MODEL, needs_images=True)
def _simulate_bits(bench: Workbench) -> None:
    """Simulate activations whose channels share bits out, too (ACIQ); no integer program can be made."""
    _replace(bench, allocate_bits)


class ChannelActivation(ActivationQuantizer):
    """Quantize each channel over a range and with bits of its own, clipped where a Laplace density errs least.

    Only a simulation: a convolution adds up products over its input channels, and an integer sum has one unit.

    Args:
        old: quantizer whose place it takes.
        channels: of the tensor.
        widths: bits of the channels.
    """

    uniform = True

    def __init__(self, old: ActivationQuantizer, channels: int, widths: _Widths) -> None:
        super().__init__(old.bits, old.grid.without_zero_point(), old.options)
        self._widths = widths
        self._spread, self._centre, self._top = (torch.zeros(channels) for _ in range(3))

    def calibrate(self, value: Tensor) -> None:
        """Take in the spreads, middles and largest magnitudes of channels."""
        rows = self._rows(value).transpose(0, 1).flatten(1)
        centre, spread = rows.mean(1), Density.LAPLACE.spread(rows)
        if not self.grid.signed:  # values above zero, as one half of a density
            centre, spread = torch.zeros_like(centre), rows.sum(1) / (rows > 0).sum(1).clamp(min=1)
        top = rows.abs().amax(1)
        for kept, found in ((self._spread, spread), (self._centre, centre.abs()), (self._top, top)):
            self._average(kept, found)

    def quantize(self, value: Tensor) -> Tensor:
        """Return the fake-quantized value."""
        scale, lo, hi = (end[:, None] for end in self._grid())
        rows = self._rows(value)
        return (torch.maximum(torch.minimum(torch.round(rows / scale), hi), lo) * scale).view(value.shape)

    def step(self) -> Tensor:
        """Refuse to be one number.

        Raises:
            HawqError: always.
        """
        raise HawqError(
            "activations with a scale for every channel are a simulation: an integer sum over channels has one unit; "
            "leave out simulate-channels and simulate-bits for an integer program"
        )

    def tensor_type(self, shape: tuple[int, ...]) -> TensorType:
        """Refuse to be integers.

        Raises:
            HawqError: always.
        """
        self.step()
        raise AssertionError

    def _rows(self, value: Tensor) -> Tensor:
        """Return values (N, C, n), of (N, C, ...) or of flattened maps (N, C n)."""
        return value.reshape(len(value), len(self._spread), -1)

    def _grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return scales, lowest and highest codes, float32, (C,) each."""
        bits = self._widths(self._spread, self.bits).float()
        hi = (2 ** (bits - int(self.grid.signed)) - 1).clamp(min=0)
        clips = torch.tensor([Density.LAPLACE.clip(2 * codes + 1) for codes in hi.tolist()])
        reach = torch.minimum(self._centre + self._spread * clips, self._top)
        scale = torch.where((hi > 0) & (reach > 0), reach / hi, 1.0)
        return scale, torch.where(hi > 0, -hi - 1, 0) if self.grid.signed else torch.zeros_like(hi), hi


def _replace(bench: Workbench, widths: _Widths) -> None:
    """Give the tensors that units read, those of the pinned ones aside, a quantizer by channel, and simulate."""
    model, pinned = bench.model, pinned_units(bench.graph)
    made = []
    for domain in dict.fromkeys(model.plan.domains.values()):
        if not domain.readers or pinned.intersection(domain.readers):
            continue
        old = model.input_quantizer(domain.root)
        made.append(ChannelActivation(old, bench.graph.nodes[domain.root].shape[0], widths))
        for held in (model.stored, model.read):
            held.update({key: made[-1] for key, quantizer in held.items() if quantizer is old})
    model.options = replace(model.options, fixed_point=True)
    for quantizer in made:
        quantizer.eval().calibrating = True
    for batch in bench.needed_images():
        model(batch)
    for quantizer in made:
        quantizer.calibrating = False
    bench.notes.append("activations by channel are simulated in float32: no integer program computes this")
