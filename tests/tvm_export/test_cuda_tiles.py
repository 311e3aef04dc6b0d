"""Every tile of the tensor-core convolution gives the reference's integers; choices suit layers and devices."""

import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from convolution_cases import KINDS, layer, site_of
from cuda_emulator import cuda_source
from kernel_cases import KernelCase, behind, check, kernel_case
from kernel_runner import store

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o
from tvm_export.cuda.backend import CudaBackend, CudaKernel
from tvm_export.cuda.conv_mma import MmaConv, conv_mma
from tvm_export.cuda.tiles import DEVICES, TILES, Gemm, Plan, choose
from tvm_export.cuda.toolchain import compile_source

ARCHITECTURES = ["sm_80"]
# one for each way of multiplying: bytes, nibbles, nibbles widened to meet bytes on either side
WAYS = ("u8 x s8 -> u8", "s4 x s4 -> s4", "s8 x s3 -> u4", "s4 x s8 -> sums")


def planned(plans):
    """Return what makes the kernels of layers with one plan after the other."""
    chosen = iter(plans)
    return lambda site: CudaKernel(*conv_mma(site, ARCHITECTURES, next(chosen)))


@pytest.mark.parametrize("way", WAYS)
def test_every_tile(way, tmp_path):
    case = layer("strided", way, fill=1 if KINDS[way][0][2] else 0)
    plans = [Plan(replace(t, stages=2 + i % 3), 1 + i % 2 * 2) for i, t in enumerate(TILES)]
    cases = [kernel_case(case, behind(case, i + WAYS.index(way))) for i in range(len(plans))]
    check(cases, tmp_path, ["sm_80"], planned(plans), both_ways=True)


@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_tiles_of_other_architectures(arch, tmp_path):
    plans = [Plan(tile, 2) for tile in list(TILES)[-len(WAYS) :]]
    cases = [layer("strided", way) for way in WAYS]
    check([kernel_case(case, behind(case, i)) for i, case in enumerate(cases)], tmp_path, [arch], planned(plans))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_every_tile_stage_and_slicing(arch, way, tmp_path):
    plans = [
        Plan(replace(tile, stages=stages), slices) for tile, stages, slices in product(TILES, (2, 3, 4), (1, 2, 5))
    ]
    case = layer("strided", way)
    cases = [kernel_case(case, behind(case, i)) for i in range(len(plans))]
    check(cases, tmp_path, [arch], planned(plans), both_ways=True)


@pytest.mark.slow
@pytest.mark.parametrize("arch", DEVICES)
def test_no_tile_spills_registers_whatever_it_multiplies(arch):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    functions = {}
    for index, (tile, way) in enumerate(product(TILES, WAYS)):
        for slices in (1, 2):
            case = layer("strided", way)
            site = kernel_case(case, behind(case, index)).site
            functions[f"op{index}_{slices}"], _ = conv_mma(site, [arch], Plan(tile, slices))
    kernels = compile_source(cuda_source(functions), [arch]).kernels
    assert {kernel.name.removesuffix("_kernel") for kernel in kernels} >= set(functions)
    assert [kernel for kernel in kernels if kernel.stack_bytes] == []


def test_sums_too_large_to_be_taken_16_fold(tmp_path):
    row = 76_000
    source, out = TensorType((row,), 8, signed=False), TensorType((3,), 32, signed=True)
    constants = {"weight": torch.full((3, row), 7, dtype=torch.int8), "bias": torch.zeros(3, dtype=torch.int32)}
    op = o.Linear(name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1])
    case = op, [torch.full((1, row), 255, dtype=torch.int32)], [source], constants
    assert int(execute_op(*case)[0, 0]) * 16 >= 2**31
    assert "kScaleW = false" in MmaConv.of(site_of(*case), ARCHITECTURES).text()
    assert "kScaleW = true" in MmaConv.of(site_of(*layer("strided", "u8 x s4 -> s8")), ARCHITECTURES).text()
    check([kernel_case(case)], tmp_path, ["sm_80"])


@pytest.mark.parametrize("kind", ["u8 x s8 -> u8", "s8 x s3 -> u4"])
def test_an_image_of_few_channels_is_gathered(kind, tmp_path):
    """4 bytes a pixel: a window of 7 x 7 fills 196 of 256 bytes, not 1568."""
    op, inputs, (source,), constants = layer("image", kind)
    storage = CudaBackend(ARCHITECTURES).storage(source, image=True)
    assert storage.channels == 4
    site = replace(site_of(op, inputs, [source], constants), inputs=(storage,))
    assert MmaConv.of(site, ARCHITECTURES).gemm.row_bytes == 7 * 7 * 4
    expected = {"op": execute_op(op, inputs, [source], constants)}
    check([KernelCase(site, [store(storage, inputs[0])], expected)], tmp_path, ["sm_75", "sm_80"])


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tiles_divide_into_fragments(tile):
    assert tile.m % (16 * tile.warps_m) == tile.n % (16 * tile.warps_n) == 0
    assert tile.threads in (128, 256)
    assert tile.step in (64, 128)
    assert tile.shared_bytes <= min(device.shared_bytes for device in DEVICES.values())


@pytest.mark.parametrize("arch", DEVICES)
def test_large_layers_take_large_tiles_and_small_ones_fill_the_device(arch):
    large = choose(Gemm(128 * 56 * 56, 256, 1152), [arch])
    assert (large.tile.m, large.tile.n, large.slices) == (128, 128, 1)
    small = Gemm(7 * 7, 512, 4608)  # the last stage of ResNet-18, one image
    plan = choose(small, [arch])
    tiles_m, tiles_n = plan.tiles(small)
    assert plan.slices > 1
    assert tiles_m * tiles_n * plan.slices >= DEVICES[arch].multiprocessors / 2


def test_short_rows_take_no_more_stages_than_steps():
    plan = choose(Gemm(1000, 64, 64), ["sm_80"])
    assert (plan.slices, plan.tile.stages) == (1, 2)


def test_shared_memory_fits_the_smallest_of_several_architectures():
    gemm = Gemm(128 * 56 * 56, 256, 1152)
    assert choose(gemm, ["sm_90", "sm_75"]).tile.shared_bytes <= DEVICES["sm_75"].shared_bytes


def test_weights_meet_the_codes_they_belong_to():
    """Nibbles that meet bytes: the low ones hold the first 16 codes of 32."""
    op, inputs, types, constants = layer("strided", "u8 x s4 -> s8")
    weight = MmaConv.of(site_of(op, inputs, types, constants), ARCHITECTURES).weight()
    first = constants["weight"].numpy()[0, :32, 0, 0].astype(np.int64)  # channels of the first tap
    assert ((weight[0, :16] & 15) ^ 8).astype(int).tolist() == (first[:16] + 8).tolist()
    assert ((weight[0, :16] >> 4) ^ 8).astype(int).tolist() == (first[16:] + 8).tolist()


def test_no_type_is_wider_than_its_storage():
    kind = TensorType((3, 8, 8), 8, signed=False)
    assert [CudaBackend(ARCHITECTURES).storage(kind, image=image).channels for image in (True, False)] == [4, 16]
