"""The emulator of CUDA kernels refuses what a GPU would do silently."""

import numpy as np
import pytest
from cuda_emulator import Emulator, Launch

KERNEL = """
extern "C" __global__ void __launch_bounds__(32) op0_kernel(int* __restrict__ x_ptr, int* __restrict__ y_ptr) {{
  y_ptr[threadIdx.x] = {expression};
}}
"""
X = (np.arange(32) + 2**31 - 32).astype(np.int32)


def run(expression, folder):
    emulator = Emulator(KERNEL.format(expression=expression), "sm_80", folder)
    return emulator.run("op0_kernel", Launch({"threadIdx.x": 32}), {"x": X, "y": np.zeros(32, np.int32)})["y"]


def test_threads_run_and_the_caller_keeps_its_arrays(tmp_path):
    before = X.copy()
    assert run("x_ptr[31 - threadIdx.x]", tmp_path).tolist() == X[::-1].tolist()
    assert X.tolist() == before.tolist()


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("x_ptr[threadIdx.x + 1]", "beyond its arguments"),
        ("x_ptr[threadIdx.x] + 1", "overflows a signed integer"),
        ("*(int*)((char*)x_ptr + threadIdx.x)", "off its alignment"),
    ],
)
def test_faults_are_told_and_the_next_kernel_runs(expression, complaint, tmp_path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "right").mkdir()
    with pytest.raises(AssertionError, match=complaint):
        run(expression, tmp_path / "wrong")
    assert run("x_ptr[threadIdx.x]", tmp_path / "right").tolist() == X.tolist()
