"""Min-max weights: one scale per channel or one per layer."""

import torch

from hawq.quantizers import QuantOptions
from hawq.quantizers.minmax import MinMaxWeight

WEIGHT = torch.tensor([[0.5, -1.0], [3.5, 7.0]])


def test_a_scale_per_channel_or_per_layer():
    assert MinMaxWeight(4, WEIGHT, QuantOptions()).scale(WEIGHT).equal(torch.tensor([1.0, 7.0]) / 7)
    whole = MinMaxWeight(4, WEIGHT, QuantOptions(weight_group=0))
    assert whole.scale(WEIGHT).tolist() == [1.0, 1.0]
    codes, _ = whole.codes(WEIGHT)
    assert codes.tolist() == [[0, -1], [4, 7]]  # ties to even: 0.5 and 3.5


def test_the_gradient_passes_rounding_and_clipping():
    weight = WEIGHT.clone().requires_grad_()
    quantizer = MinMaxWeight(4, WEIGHT, QuantOptions())
    (quantizer(weight) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert weight.grad.tolist() == [[1.0, 2.0], [3.0, 4.0]]
