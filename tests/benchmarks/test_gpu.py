"""The benchmark of CUDA libraries: what it counts, how it assigns times, and what it says where there is no GPU."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from schemes import lowered

from tvm_export.backend import backend
from tvm_export.lower import sites

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """Import a script of the folder by name, as one that runs there does."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name.startswith(("gpu", "cpu_")):
            del sys.modules[name]


def test_without_a_gpu_one_line_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "run", str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no NVIDIA GPU here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_half_that_measures_does_not_need_the_compiler():
    code = "import sys; sys.modules['tvm'] = None; import gpu_run, hawq.runtime.library; print(gpu_run.missing() or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER)
    assert done.returncode == 0, done.stderr


def _kernel(program, name):
    target = backend("cuda", arch=["sm_90"])
    return target.kernel(next(site for site in sites(program, target, 2) if site.op.name == name))


def test_layers_tell_products_and_bytes(scripts):
    program = lowered("Residual", "uniform8")
    found = {layer.name: layer for layer in scripts("gpu_export").layers(program, "sm_90", 2)}
    assert list(found) == [site.op.name for site in sites(program, backend("cuda", arch=["sm_90"]), 2)]
    assert found["conv1"].macs == 2 * 12 * 4 * 4 * 8 * 9  # images, channels, map, channels of the input, taps
    assert found["max_pool2d"].macs == 0
    assert found["max_pool2d"].moved == 2 * 16 * (16 * 16 + 8 * 8)  # 8 channels are stored as 16
    assert not found["conv1"].nibbles
    # an addition and a requantization behind it: codes of 8 channels in, a stream in, a stream and its codes out
    maps = 2 * 16 * (8 * 8 + 4 * 4 * (2 + 2 + 1))
    constants = sum(array.nbytes for array in _kernel(program, "down").constants)
    assert found["down"].moved == maps + constants
    narrow = {layer.name: layer for layer in scripts("gpu_export").layers(lowered("Residual", "uniform4"), "sm_90", 2)}
    assert narrow["conv1"].nibbles
    assert not narrow["stem"].nibbles


def test_a_layer_is_bound_by_products_or_by_memory(scripts):
    roofline = scripts("gpu_roofline")
    peaks = roofline.device("NVIDIA A100-SXM4-40GB")
    assert peaks == roofline.DEVICES["A100"]
    assert roofline.device("NVIDIA A10") is None
    products = roofline.Layer("conv", 1, 312_000_000, 1, False)
    assert roofline.limit_us(products, peaks) == pytest.approx(1.0)
    halved = roofline.Layer("conv", 1, 312_000_000, 1, True)
    assert roofline.limit_us(halved, peaks) == pytest.approx(0.5)
    bytes_ = roofline.Layer("add", 1, 0, 1_555_000, False)
    assert roofline.limit_us(bytes_, peaks) == pytest.approx(1.0)


def test_kernels_are_assigned_to_layers_in_the_order_of_their_launch(scripts):
    layer = scripts("gpu_roofline").Layer
    layers = [layer("a", 1, 0, 0, False), layer("sliced", 2, 0, 0, False)]
    assign = scripts("gpu_run").assign
    assert assign(layers, [1.0, 2.0, 3.0, 3.0, 4.0, 5.0]) == {"a": 2.0, "sliced": 7.0}
    with pytest.raises(ValueError, match="5 kernels ran, and a call has 3"):
        assign(layers, [1.0] * 5)
