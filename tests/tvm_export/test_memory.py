"""Tensors that live at the same time share no memory, little more is planned than lives at once, running adds none."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemes import lowered

from hawq.files import read_json
from tvm_export import export
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import sites
from tvm_export.memory import Lifetime, assign

ROOT = Path(__file__).parents[2]
SETTLED = 2

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

/* how many blocks of at least a page were taken from the system's heap, and how many bytes in smaller ones */
long pages, small;

static void count(size_t size) {
  if (size >= 4096) __atomic_add_fetch(&pages, 1, __ATOMIC_RELAXED);
  else __atomic_add_fetch(&small, size, __ATOMIC_RELAXED);
}

void* malloc(size_t size) {
  static void* (*real)(size_t);
  if (!real) real = dlsym(RTLD_NEXT, "malloc");
  count(size);
  return real(size);
}

int posix_memalign(void** place, size_t alignment, size_t size) {
  static int (*real)(void**, size_t, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "posix_memalign");
  count(size);
  return real(place, alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  static void* (*real)(size_t, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "aligned_alloc");
  count(size);
  return real(alignment, size);
}
"""

RUN = """
import ctypes, json, sys
import numpy as np
from pathlib import Path
from hawq.runtime.machine import Machine, find_runtime

shim = ctypes.CDLL(sys.argv[2])
pages, small = (ctypes.c_long.in_dll(shim, name) for name in ("pages", "small"))
folder = Path(sys.argv[1])
machine = Machine(folder / "model.so", cuda=False, runtime=find_runtime(folder))
images = [machine.upload(np.zeros((int(count), 3, 16, 16), np.float32)) for count in sys.argv[3:]]
found = []
for image in images:
    before = pages.value, small.value
    result = machine.call("main", image)
    del result
    found.append((pages.value - before[0], small.value - before[1]))
print(json.dumps(found))
"""


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(0, 6)), max_size=25))
def test_no_two_tensors_of_a_block_are_needed_together(numbers):
    tensors = [Lifetime(size, first, first + length) for size, first, length in numbers]
    places = assign(tensors)
    for i, a in enumerate(tensors):
        for j, b in enumerate(tensors[:i]):
            assert places[i] != places[j] or set(range(a.first, a.last + 1)).isdisjoint(range(b.first, b.last + 1))
    assert set(places) == set(range(len(set(places))))


def test_a_chain_takes_two_blocks_and_a_branch_a_third():
    chain = [Lifetime(size, i, i + 1) for i, size in enumerate([8, 4, 6, 2])]
    assert assign(chain) == [0, 1, 0, 1]
    assert assign([Lifetime(8, 0, 3), *chain]) == [0, 1, 2, 1, 2]


def alive(program, batch):
    """Return the bytes of tensors between image and logits: the most that live at once, and all of them."""
    kernels = sites(program, LlvmBackend(), batch)
    written = {name: s for kernel in kernels for name, s in kernel.written.items()}
    size = {name: math.prod(s.shape(batch)) * np.dtype(s.dtype).itemsize for name, s in written.items()}
    made = {name: i for i, kernel in enumerate(kernels) for name in kernel.written}
    reads = [{name for name, _ in kernel.reads} for kernel in kernels]
    last = {name: max([i for i, names in enumerate(reads) if name in names], default=-1) for name in written}
    inner = set(written) - {program.output.tensor}
    peak = max(sum(size[name] for name in inner if made[name] <= i <= last[name]) for i in range(len(kernels)))
    return peak, sum(size[name] for name in inner)


@pytest.mark.parametrize("name", ["Residual", "Branches", "Inverted", "Dense"])
def test_the_manifest_tells_what_is_planned_and_that_is_near_what_lives_at_once(name, tmp_path):
    program = lowered(name)
    export(program, "llvm", tmp_path, batch=2)
    planned = read_json(tmp_path / "manifest.json", "hawq-library", 4)["memory"]["activations"]
    peak, everything = alive(program, 2)
    assert peak <= planned <= 1.4 * peak < everything


@pytest.mark.parametrize(("batch", "calls"), [(2, [2] * 20), (None, [8, 8, *range(1, 9), *range(8, 0, -1)])])
def test_after_the_first_runs_no_memory_is_allocated(batch, calls, tmp_path):
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and gcc to count what is allocated")
    export(lowered("Residual"), "llvm", tmp_path, batch=batch)
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(shim), "TVM_NUM_THREADS": "2"}
    command = [sys.executable, "-c", RUN, str(tmp_path), str(shim), *map(str, calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0][0] > 0
    # what is left are the headers of tensors, some 200 bytes for each op
    assert all(pages == 0 and 0 < small < 16384 for pages, small in found[SETTLED:])
