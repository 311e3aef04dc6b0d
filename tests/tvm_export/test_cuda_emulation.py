"""Every CUDA kernel, run on the CPU, gives the reference executor's integers on every architecture."""

import pytest
from cuda_emulator import EmulatedNetwork
from networks import images
from schemes import lowered

from hawq.integer import ReferenceExecutor

CASES = [
    ("Residual", "uniform8", False),
    ("Residual", "uniform4", False),
    ("Branches", "uniform4", False),
    ("Inverted", "mixed", True),
    ("Inverted", "uniform4", False),
    ("Dense", "mixed", False),
]


@pytest.mark.parametrize(("name", "scheme", "asymmetric"), CASES)
def test_every_integer_is_equal(name, scheme, asymmetric, tmp_path):
    program = lowered(name, scheme, asymmetric=asymmetric)
    batch = images(1, seed=7)
    expected = ReferenceExecutor(program).trace(batch)

    network = EmulatedNetwork(program, len(batch))
    for arch in ("sm_75", "sm_80", "sm_90"):
        found = network.trace(batch, arch, tmp_path)
        for tensor, codes in expected.items():
            assert codes.equal(found[tensor]), (arch, tensor)
