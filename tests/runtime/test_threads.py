"""As many threads run a library as were asked for, and its integers do not depend on their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import images
from schemes import lowered

from hawq.errors import UsageError
from hawq.integer import ReferenceExecutor
from hawq.runtime import threads
from tvm_export import export

ROOT = Path(__file__).parents[2]
COUNT = 2

RUN = """
import json, os, sys
import numpy as np
from hawq.runtime import open_library
from hawq.runtime.threads import use_threads

tasks = lambda: len(os.listdir("/proc/self/task"))
chosen = use_threads(int(sys.argv[2]) if len(sys.argv) > 2 else None)
library, batch, before = open_library(sys.argv[1]), np.load("images.npy"), tasks()
found = library(batch).tolist()
print(json.dumps({"chosen": chosen, "started": tasks() - before, "logits": found}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, program = tmp_path_factory.mktemp("threads"), lowered("Residual")
    export(program, "llvm", folder, batch=COUNT)
    np.save(folder / "images.npy", images(COUNT).numpy())
    return folder, ReferenceExecutor(program)(images(COUNT)).tolist()


def run(folder, *arguments, **variables):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", RUN, str(folder), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to count threads")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_threads_run_and_the_integers_stay(count, place):
    folder, expected = place
    found = run(folder, str(count), OMP_NUM_THREADS="4")
    # the caller is one of them; with a single one TVM starts none
    assert found == {"chosen": count, "started": count - 1, "logits": expected}


def test_by_default_the_variable_decides_then_the_cores(place):
    folder, expected = place
    assert run(folder)["chosen"] == threads.cores()
    assert run(folder, TVM_NUM_THREADS="3") == {"chosen": 3, "started": 2, "logits": expected}


@pytest.mark.parametrize(
    ("count", "variable", "source"),
    [(0, "1", "--threads 0"), (None, "many", "TVM_NUM_THREADS many"), (None, "-2", "TVM_NUM_THREADS -2")],
)
def test_nonsense_is_refused(count, variable, source, monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", variable)
    with pytest.raises(UsageError, match=f"{source}: give at least 1 thread; this process may run on"):
        threads.use_threads(count)
    assert os.environ["TVM_NUM_THREADS"] == variable


@pytest.mark.parametrize(
    ("allowed", "siblings", "cores", "bound"),
    [
        ([0, 1, 2], {}, 3, "1"),  # a system that does not tell
        ([0, 1, 2, 3], {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, 2, "0"),  # TVM would bind both threads to one core
        ([2, 3], {2: "2", 3: "3"}, 2, "0"),  # TVM would leave the CPUs we were given
        ([0, 1], {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 2, "1"),
    ],
)
def test_cores_are_counted_once_and_threads_bound_where_tvm_numbers_them_right(
    allowed, siblings, cores, bound, tmp_path, monkeypatch
):
    for cpu, text in siblings.items():
        (tmp_path / f"cpu{cpu}").write_text(f"{text}\n")
    for name in ("TVM_NUM_THREADS", "TVM_BIND_THREADS"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "_SIBLINGS", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(allowed), raising=False)
    assert threads.cores() == cores
    assert threads.use_threads(None) == cores
    assert (os.environ["TVM_NUM_THREADS"], os.environ["TVM_BIND_THREADS"]) == (str(cores), bound)
    assert threads.describe_threads(1) == "1 thread"
    warning = f"9 threads on {cores} cores, where more threads only wait"
    assert threads.describe_threads(9) == warning
