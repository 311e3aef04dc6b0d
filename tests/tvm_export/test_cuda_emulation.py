"""Every CUDA kernel, run on the CPU, gives the reference executor's integers on every architecture."""

import pytest
import torch
from cuda_emulator import EmulatedNetwork
from networks import images
from programs import binary_network
from schemes import lowered

from hawq.integer import ReferenceExecutor

CASES = [
    ("Residual", "uniform8", False),
    ("Residual", "uniform4", False),
    ("Branches", "uniform4", False),
    ("Inverted", "mixed", True),
    ("Inverted", "uniform4", False),
    ("Dense", "mixed", False),
    ("Gated", "uniform8", True),
    ("Gated", "uniform4", False),
    ("Decoder", "uniform4", True),
    ("Detector", "uniform8", False),
]


@pytest.mark.parametrize(("name", "scheme", "asymmetric"), CASES)
def test_every_integer_is_equal(name, scheme, asymmetric, tmp_path):
    _check(lowered(name, scheme, asymmetric=asymmetric), images(1, seed=7), tmp_path)


def test_thresholds_of_accumulators_are_equal(tmp_path):
    program = binary_network()
    _check(program, torch.randn(2, *program.input.out.shape, generator=torch.Generator().manual_seed(7)), tmp_path)


def _check(program, batch, tmp_path):
    expected = ReferenceExecutor(program).trace(batch)

    network = EmulatedNetwork(program, len(batch))
    for arch in ("sm_75", "sm_80", "sm_90"):
        found = network.trace(batch, arch, tmp_path)
        assert {output.tensor for output in program.outputs.values()} <= set(found)
        for tensor, codes in found.items():
            assert codes.equal(expected[tensor]), (arch, tensor)
