"""The C++ example compiles against the wheels' headers and prints the logits of the loader."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi
from networks import SIZE
from schemes import calibrated

from hawq.qat.lower import PixelScaling
from hawq.runtime import open_library
from tvm_export import export

SOURCE = Path(__file__).parents[2] / "examples" / "run_library.cpp"
BATCH = 2


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("g++")
    ffi, runtime = Path(tvm_ffi.__file__).parent, Path(tvm.__file__).parent / "lib"
    if compiler is None:
        pytest.skip("needs g++")
    if not (ffi / "include" / "tvm" / "ffi" / "tvm_ffi.h").is_file():
        pytest.skip("needs the headers of apache-tvm-ffi's wheel")
    binary = tmp_path_factory.mktemp("example") / "run_library"
    options = [f"-I{ffi / 'include'}", f"-L{runtime}", f"-L{ffi / 'lib'}", f"-Wl,-rpath,{runtime}:{ffi / 'lib'}"]
    libraries = ["-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi"]
    subprocess.run([compiler, "-std=c++17", str(SOURCE), *options, *libraries, "-o", str(binary)], check=True)
    return binary


def run(program, *arguments):
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run([program, *map(str, arguments)], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("raw", "batch"), [(False, BATCH), (True, BATCH), (False, None)])
def test_the_logits_are_those_of_the_loader(raw, batch, program, tmp_path):
    scaling = PixelScaling((0.5,) * 3, (0.25,) * 3)
    export(calibrated("Residual").lower(scaling if raw else None), "llvm", tmp_path, batch=batch)
    rng, shape = np.random.default_rng(3), (BATCH, 3, SIZE, SIZE)
    images = rng.integers(0, 256, shape, dtype=np.uint8) if raw else rng.normal(size=shape).astype(np.float32)
    images.tofile(tmp_path / "images.bin")
    done = run(program, tmp_path, tmp_path / "images.bin")
    assert done.returncode == 0, done.stderr
    expected = open_library(tmp_path)(images)
    rows = [line.split(": ") for line in done.stdout.splitlines()]
    assert [[int(word) for word in logits.split()] for _, logits in rows] == expected.tolist()
    assert [what for what, _ in rows] == [f"{n} logits {best}" for n, best in enumerate(expected.argmax(1))]

    whole = images.nbytes if batch else images[0].nbytes
    (tmp_path / "half.bin").write_bytes(images.tobytes()[: whole // 2])
    done = run(program, tmp_path, tmp_path / "half.bin")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"has {whole // 2} bytes, the library's batch takes {whole}" in done.stderr


def test_bad_arguments_are_told(program, tmp_path):
    assert "usage: run_library DIR IMAGES.bin" in run(program).stderr
    assert "absent cannot be read" in run(program, tmp_path, "absent").stderr
