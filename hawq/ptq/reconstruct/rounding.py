"""Learn whether each weight rounds up or down (AdaRound, 2004.10568)."""

import torch
from torch import Tensor, nn

from hawq.quantizers.options import QuantOptions
from hawq.quantizers.weight import WeightQuantizer, per_channel

__all__ = ["LearnedRounding"]

_GAMMA, _ZETA = -0.1, 1.1


class LearnedRounding(WeightQuantizer):
    """Put a weight w between its two neighbours on the grid: s e^g * clamp(floor(w / s) + h(v), -n, n).

    h(v) = clamp(1.2 sigmoid(v) - 0.1, 0, 1) is the rectified sigmoid, which reaches 0 and 1 while its slope does not
    vanish (2004.10568, equation 23). It begins at the fraction of w / s, where the weight is what it is in float. The
    gain g, one for a channel, or for all where they share a scale, makes up for what a channel's roundings add up to.

    Args:
        bits: of the codes.
        weight: float, (O, ...).
        scale: s, positive, float32, (O,).
        limit: n, float32, (O,).
        options: of the network.

    Attributes:
        logit: v, (O, ...).
        gain: g, (O,) or (1,).
        limits: float32, (O,).
    """

    scales_given = True

    def __init__(self, bits: int, weight: Tensor, scale: Tensor, limit: Tensor, options: QuantOptions) -> None:
        super().__init__(bits, weight, options)
        self._scale, self.limits, self._limit = scale, limit, per_channel(limit, weight)
        ratio = weight / per_channel(scale, weight)
        self._below = ratio.floor()
        fraction = ratio - self._below
        self.logit = nn.Parameter(torch.logit((fraction - _GAMMA) / (_ZETA - _GAMMA)))
        self.gain = nn.Parameter(torch.zeros(1 if bool((scale == scale[0]).all()) else len(scale)))

    @property
    def scales(self) -> Tensor:
        """The scales as they are learned so far, s e^g, float32, (O,)."""
        return self._scale * self.gain.exp()

    def share(self) -> Tensor:
        """Return h(v), 0..1, (O, ...)."""
        return (torch.sigmoid(self.logit) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)

    def indecision(self, power: float) -> Tensor:
        """Return the regulariser: the sum over the weights of 1 - |2 h(v) - 1|^power, 0 once all are rounded."""
        return (1 - (2 * self.share() - 1).abs().pow(power)).sum()

    @torch.no_grad()
    def rounded(self) -> Tensor:
        """Return the codes, float32, (O, ...): up where h(v) >= 1/2, that is where v >= 0."""
        codes = self._below + (self.logit >= 0)
        return torch.minimum(torch.maximum(codes, -self._limit), self._limit)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights between their neighbours, (O, ...), whatever float weights are passed."""
        codes = torch.minimum(torch.maximum(self._below + self.share(), -self._limit), self._limit)
        return codes * per_channel(self.scales, codes)

    def row_scale(self, rows: Tensor) -> Tensor:
        """Return the scales, float32, (O,)."""
        return self.scales

    def quantize(self, rows: Tensor) -> Tensor:
        """Return the rows, (O, n), between their neighbours."""
        return self.forward(rows.view(self._below.shape)).flatten(1)
