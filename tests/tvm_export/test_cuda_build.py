"""CUDA libraries are built without a GPU, hold machine code for every architecture, and use its tensor cores."""

import re
import shutil
from dataclasses import replace
from itertools import product

import pytest
import torch
from networks import images
from schemes import lowered

from hawq.errors import HawqError
from hawq.files import read_json
from hawq.integer.ops import Conv2d, Linear
from tvm_export import export, load, verify
from tvm_export.backend import backend
from tvm_export.cache import KernelCache
from tvm_export.cuda import toolchain
from tvm_export.cuda.device import ARCHITECTURES, check_device, present_architecture
from tvm_export.cuda.resources import KernelResources, parse_report
from tvm_export.cuda.toolchain import count_imma, disassemble
from tvm_export.link import Workshop
from tvm_export.lower import lower, sites


def instructions(text):
    return set(count_imma(text))


def without(monkeypatch, *programs):
    """Hide programs from the PATH."""
    found = shutil.which
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name in programs else found(name))


@pytest.fixture
def machine_code(tmp_path):
    def build(scheme, architectures, network="Residual"):
        if shutil.which("nvcc") is None:
            pytest.skip("needs nvcc to build for several architectures")
        library = export(lowered(network, scheme), "cuda", tmp_path, arch=architectures)
        try:
            return disassemble(library)
        except HawqError as error:
            pytest.skip(str(error))

    return build


def test_4_bits_use_the_widest_instruction_of_each_architecture(machine_code):
    code = machine_code("uniform4", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90"])
    assert set(code) == {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90"}
    assert {"IMMA.8832.U4.S4", "IMMA.8816.S8.S8"} <= instructions(code["sm_75"])
    for arch in ("sm_80", "sm_86", "sm_89"):
        assert {"IMMA.16864.U4.S4", "IMMA.16832.S8.S8"} <= instructions(code[arch])
    assert instructions(code["sm_90"]) == {"IMMA.16832.U8.S8", "IMMA.16832.S8.S8"}  # 4-bit codes are widened first


def test_8_bits_use_int8_tensor_cores(machine_code):
    code = machine_code("uniform8", ["sm_80", "sm_90"])
    for arch in ("sm_80", "sm_90"):
        assert instructions(code[arch]) == {"IMMA.16832.U8.S8", "IMMA.16832.S8.S8"}


@pytest.mark.parametrize("scheme", ["uniform8", "mixed"])
def test_operands_arrive_asynchronously_and_sums_stay_in_registers(scheme, machine_code):
    for arch, code in machine_code(scheme, ["sm_75", "sm_80", "sm_90"]).items():
        assert "LDSM.16.M88.4" in code
        assert ("LDGSTS" in code) == (arch != "sm_75")
        assert not re.findall(r"\b(?:LDL|STL)\b", code)  # local memory


def test_depthwise_sums_are_products_of_bytes_in_registers(machine_code):
    for code in machine_code("uniform8", ["sm_75", "sm_80", "sm_90"], "Inverted").values():
        assert "IDP.4A.U8.S8" in code
        assert not re.findall(r"\b(?:LDL|STL)\b", code)


def test_the_input_is_divided_by_ieee_rules(machine_code):
    for code in machine_code("uniform4", ["sm_75", "sm_80", "sm_90"]).values():
        assert "FCHK" in code  # checks whether a division needs its slow path; fast-math has none


def _kernels(folder):
    kernels = read_json(folder / "manifest.json", "hawq-library", 4)["kernels"]
    return {(kernel["architecture"], kernel["name"]): kernel for kernel in kernels}


@pytest.mark.parametrize("scheme", ["uniform8", "uniform4", "mixed"])
def test_no_kernel_spills_registers(scheme, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc to build for several architectures")
    architectures = list(ARCHITECTURES)
    program = lowered("Residual", scheme)
    export(program, "cuda", tmp_path, arch=architectures)
    kernels = _kernels(tmp_path)
    names = {name for _, name in kernels}
    assert set(kernels) == set(product(architectures, names))
    tiled = {f"{op.name}_kernel" for op in program.ops if isinstance(op, Conv2d | Linear)}
    assert {"stem_kernel", "conv1_kernel", "down_kernel", "head_kernel"} <= names  # equal layers share the first's
    for key, kernel in kernels.items():
        assert (kernel["stack_bytes"], kernel["spill_store_bytes"], kernel["spill_load_bytes"]) == (0, 0, 0), key
        assert 0 < kernel["registers"] <= 255
        assert (kernel["shared_bytes"] > 0) == (key[1] in tiled)


def test_spills_are_told():
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'b_kernel' for 'sm_90'
ptxas info    : Function properties for b_kernel
    96 bytes stack frame, 88 bytes spill stores, 120 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size, 6144 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'a_kernel' for 'sm_90'
ptxas info    : Function properties for a_kernel
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 368 bytes cmem[0]
"""
    assert parse_report(report) == (
        KernelResources("sm_90", "a_kernel", 8, 0, 0, 0, 0),
        KernelResources("sm_90", "b_kernel", 255, 6144, 96, 88, 120),
    )


def test_nvrtc_serves_where_there_is_no_nvcc(tmp_path, monkeypatch):
    pytest.importorskip("cuda.bindings.nvrtc")
    without(monkeypatch, "nvcc")
    library = export(lowered("Residual", "uniform4"), "cuda", tmp_path, arch=["sm_80"])
    kernels = _kernels(tmp_path)
    assert ("sm_80", "conv2_kernel") in kernels
    assert {kernel["spill_store_bytes"] for kernel in kernels.values()} == {0}
    try:
        code = disassemble(library)
    except HawqError as error:
        pytest.skip(str(error))
    assert set(code) == {"sm_80"}
    assert {"IMMA.16864.U4.S4", "IMMA.16832.S8.S8"} <= instructions(code["sm_80"])
    assert "FCHK" in code["sm_80"]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_graph_holds_every_kernel_between_image_and_result(cuda_graph):
    program = lowered("Residual")
    target = backend("cuda", arch=["sm_80"], cuda_graph=cuda_graph)
    network = lower(program, target, 1)
    text = target.compile(network.module, Workshop()).executable.as_text()
    body, graph = (re.search(rf"^@{name}:\n((?:  .*\n)*)", text, re.M) for name in ("main", "main_cuda_graph_capture"))
    assert target.describe()["cuda_graph"] == cuda_graph == bool(graph)
    launched, captured = (re.findall(r"call  ([\w]+) ", part[1]) if part else [] for part in (body, graph))
    if cuda_graph:
        assert launched == [program.ops[0].name, program.ops[-1].name]
    assert len(launched) + len(captured) == len(network.kernels)


def test_the_same_export_gives_the_same_bytes(tmp_path):
    program = lowered("Residual", "uniform4")
    workshops = {
        name: Workshop(KernelCache(tmp_path / f"{name}, kernels"), jobs) for name, jobs in (("a", 1), ("b", 3))
    }
    for name, workshop in workshops.items():
        export(program, "cuda", tmp_path / name, arch=["sm_80"], workshop=workshop)
        assert (workshop.cache.found, workshop.cache.made > 0) == (0, True)
    for file in ("model.so", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_4_bit_weights_are_packed():
    target = backend("cuda", arch=["sm_80"])
    site = next(s for s in sites(lowered("Residual", "uniform4"), target, 1) if s.op.name == "conv2")
    weight, (source,) = target.kernel(site).constants[0], site.inputs
    outputs, channels, kh, kw = site.constants["weight"].shape
    nibbles = torch.from_numpy(weight).int()
    codes = torch.stack([nibbles & 15, nibbles >> 4], -1).flatten(-2)
    codes = ((codes ^ 8) - 8)[:outputs, : kh * kw * source.channels].reshape(outputs, kh, kw, -1)
    assert codes[..., :channels].permute(0, 3, 1, 2).tolist() == site.constants["weight"].tolist()


def test_tensors_beyond_32_bit_indices_are_refused():
    target = backend("cuda", arch=["sm_80"])
    site = next(s for s in sites(lowered("Residual"), target, 1) if s.op.name == "conv2")
    with pytest.raises(HawqError, match=r"batch of 8388608 .* smaller --batch"):
        target.kernel(replace(site, batch=2**23))


def test_no_compiler_is_a_clear_error(monkeypatch):
    without(monkeypatch, "nvcc")
    with pytest.raises(HawqError, match=r"several architectures .* need nvcc"):
        toolchain.compile_source("", ["sm_80", "sm_90"])


def test_source_that_does_not_compile_is_reported():
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    with pytest.raises(HawqError, match="nvcc failed for sm_80"):
        toolchain.compile_source("this is no C++", ["sm_80"])


def test_running_without_a_gpu_is_a_clear_error(tmp_path, monkeypatch):
    export(lowered("Residual"), "cuda", tmp_path, arch=["sm_80"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HawqError, match="no NVIDIA GPU"):
        load(tmp_path)


def test_a_library_without_machine_code_is_a_clear_error(tmp_path):
    library = export(lowered("Residual"), "llvm", tmp_path)
    with pytest.raises(HawqError, match="no machine code for GPUs"):
        disassemble(library)


@pytest.mark.parametrize(
    ("capability", "arch", "complaint"),
    [
        ((9, 0), "sm_90", "holds code for sm_80, and this GPU is sm_90: export again with --arch sm_90"),
        ((8, 7), "sm_86", None),  # the same generation runs code of older revisions
        ((7, 0), None, "hawq builds for sm_75"),
        ((12, 0), None, "hawq builds for sm_75"),
    ],
)
def test_a_gpu_that_cannot_run_the_library_is_named(capability, arch, complaint, tmp_path, monkeypatch):
    export(lowered("Residual"), "cuda", tmp_path, arch=["sm_80"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert present_architecture() == arch
    if complaint:
        with pytest.raises(HawqError, match=complaint):
            load(tmp_path)
    else:
        check_device(str(tmp_path), ["sm_80"])


@pytest.mark.gpu
@pytest.mark.parametrize("scheme", ["uniform8", "uniform4", "mixed"])
def test_a_device_gives_the_same_integers(scheme, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    program = lowered("Residual", scheme)
    export(program, "cuda", tmp_path, batch=2)
    assert verify(program, load(tmp_path), images(4, seed=7), until="all").exact
