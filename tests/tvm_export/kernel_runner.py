"""Run the kernel of one op alone, its stored padding filled with noise that must not reach any code."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm

from hawq.errors import HawqError
from hawq.integer import execute_op
from hawq.integer import ops as o
from hawq.integer.arithmetic import dyadic
from hawq.runtime.devices import check_cpu
from tvm_export.definitions import Site
from tvm_export.llvm import LlvmBackend
from tvm_export.nibbles import pack_nibbles
from tvm_export.storage import Storage

_PORTABLE = "x86-64" if platform.machine() == "x86_64" else "generic"
BACKENDS = {"this CPU": LlvmBackend, "portable": lambda: LlvmBackend(_PORTABLE)}
CPUS = ("znver4", "alderlake", "skylake-avx512", "haswell", "x86-64-v2", "x86-64")
"""The oldest that have each of INSTRUCTIONS."""


def backend_for(cpu: str) -> LlvmBackend:
    """Return the backend of an x86 CPU whose code this machine runs; skip the test if there is none."""
    if platform.machine() != "x86_64":
        pytest.skip(f"{platform.machine()} does not run code for {cpu}")
    backend = LlvmBackend(cpu)
    try:
        check_cpu(Path(), cpu, backend.describe()["features"])
    except HawqError as error:
        pytest.skip(str(error))
    return backend


def check(backend, op, inputs, types, constants, plan=None) -> None:
    """Compare a compiled kernel with the reference, every integer."""
    expected = execute_op(op, inputs, types, constants)
    assert torch.equal(run_kernel(backend, op, inputs, types, constants, plan), expected)


def site_of(backend, op, types, constants, batch=1) -> Site:
    """Return an op with the storage a backend gives its tensors."""
    sources = tuple(backend.storage(kind, image=False) for kind in types)
    out = backend.storage(op.out, image=isinstance(op, o.QuantizeInput | o.PixelInput))
    return Site(op, sources, out, {name: tensor.numpy() for name, tensor in constants.items()}, batch)


def requantizing(outputs: int, ratio: float) -> dict[str, torch.Tensor]:
    """Return the constants of a requantization by one ratio."""
    multiplier, shift = dyadic(torch.full((outputs,), ratio, dtype=torch.float64))
    return {"multiplier": multiplier.int(), "shift": shift.int()}


def store(storage: Storage, codes: torch.Tensor) -> np.ndarray:
    """Return codes (N, C, H, W) or (N, F) as a storage keeps them; extra channels get random codes."""
    batch = len(codes)
    limits, shape = np.iinfo(storage.dtype), (*storage.shape(batch)[:3], storage.channels)
    noise = np.random.default_rng(0).integers(limits.min, limits.max, shape, endpoint=True)
    stored = noise.astype(storage.dtype)
    stored[..., : storage.chw[0]] = codes.reshape(batch, *storage.chw).permute(0, 2, 3, 1).numpy()
    return pack_nibbles(stored) if storage.packed else stored


def run_kernel(backend, op, inputs, types, constants, plan=None) -> torch.Tensor:
    """Return the codes one compiled kernel produces, int32, (N, *shape); arguments as for execute_op."""
    batch = len(inputs[0])
    site = site_of(backend, op, types, constants, batch)
    sources, out = site.inputs, site.out
    kernel = backend.kernel(replace(site, plan=plan))
    module = tvm.IRModule({"kernel": kernel.function.with_attr("global_symbol", "kernel")})
    compiled = tvm.compile(module, backend.target)
    stored = [store(s, codes) for s, codes in zip(sources, inputs, strict=True)] if sources else [inputs[0].numpy()]
    result = tvm.runtime.tensor(np.zeros(out.shape(batch), out.dtype))
    compiled["kernel"](*(tvm.runtime.tensor(array) for array in (*stored, *kernel.constants)), result)
    return out.unpack(torch.from_numpy(result.numpy()))
