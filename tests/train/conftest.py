"""The network that trainings are tested on."""

import pytest
import torch
from networks import SIZE, build

from hawq.graph.trace import trace


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return trace(build("Residual"), (3, SIZE, SIZE))
