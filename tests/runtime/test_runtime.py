"""A deployed library gives the same integers without torch and the compiler, and says what is wrong with a bad one."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SIZE
from PIL import Image
from schemes import calibrated

from hawq.cli.main import main as hawq
from hawq.data import Preprocessing
from hawq.data.splits import Augment, FileSplit
from hawq.errors import HawqError, UsageError
from hawq.images import open_image
from hawq.integer import ReferenceExecutor
from hawq.qat.lower import PixelScaling
from hawq.runtime import devices, open_library
from hawq.runtime.__main__ import main
from hawq.runtime.machine import RUNTIME_VARIABLE, find_runtime
from hawq.runtime.manifest import read_manifest
from tvm_export import export, load

ROOT = Path(__file__).parents[2]
HOW = Preprocessing(SIZE, SIZE + 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
NAMES = [f"class {index}" for index in range(10)]
COUNT = 3

# what imports anything of these fails, and what loads the compiler's library behind Python's back is told
ALONE = """
import sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "tvm", "safetensors", "typer", "rich"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Guard())
from hawq.runtime.__main__ import main
code = main()
assert not [line for line in open("/proc/self/maps") if "libtvm_compiler" in line or "libtorch" in line]
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    """Fix the default number of threads, and undo what the command sets for TVM's thread pool."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    monkeypatch.setenv("TVM_BIND_THREADS", "0")


def alone(*arguments):
    """Run the loader in a process that has neither torch nor TVM's Python package."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three images of noise: wide, high, and grey of the right size."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    shapes = [(30, 41, 3), (25, 20, 3), (SIZE, SIZE)]
    paths = [folder / f"{index}.png" for index in range(COUNT)]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def images(files, raw):
    """Return the images as training reads them."""
    pixels = FileSplit(files, open_image, torch.zeros(COUNT), HOW).pixels(
        torch.arange(COUNT), Augment.NONE, torch.zeros(COUNT, dtype=torch.int64)
    )
    return pixels if raw else HOW.normalise(pixels)


@pytest.fixture(
    scope="module",
    params=[("uniform8", False, 1), ("mixed", True, 2), ("uniform4", False, None)],
    ids=["float input", "raw pixels", "any batch"],
)
def exported(request, tmp_path_factory):
    """Return a library's folder, its program, and whether it takes raw pixels."""
    scheme, raw, batch = request.param
    program = calibrated("Residual", scheme).lower(PixelScaling(HOW.mean, HOW.std) if raw else None)
    folder = tmp_path_factory.mktemp("library")
    export(program, "llvm", folder, batch=batch, preprocessing=HOW, class_names=NAMES)
    return folder, program, raw


@pytest.fixture
def folder(tmp_path, exported):
    """Return a copy of a library that may be damaged."""
    for file in exported[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(folder, **entries):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_integers_without_torch_and_compiler_are_those_with_them(exported, files, tmp_path):
    folder, program, raw = exported
    done = alone(folder, *files, "--logits", tmp_path / "logits.npy", "--raw", tmp_path / "raw.bin", "--json")
    assert done.returncode == 0, done.stderr
    found, batch = np.load(tmp_path / "logits.npy"), images(files, raw)
    assert (found.dtype, found.shape) == (np.int32, (COUNT, 10))
    assert found.tolist() == load(folder)(batch).tolist() == ReferenceExecutor(program)(batch).tolist()
    assert (tmp_path / "raw.bin").read_bytes() == batch.numpy().tobytes()

    document = json.loads(done.stdout)
    logits = load(folder).logits(batch)
    values, classes = logits.sort(descending=True, stable=True)
    for row, path, best, value in zip(document["images"], files, classes.tolist(), values.tolist(), strict=True):
        assert row["file"] == str(path)
        assert row["top"] == [{"class": best[i], "name": NAMES[best[i]], "logit": value[i]} for i in range(5)]
        assert f"{NAMES[best[0]]}" in done.stderr


def test_every_pixel_value_is_normalised_to_the_bits_of_training(exported, tmp_path):
    values = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    Image.fromarray(np.stack([values, values[::-1], values.T], axis=-1)).save(tmp_path / "all.png")
    library, how = open_library(exported[0]), Preprocessing(SIZE, None, HOW.mean, HOW.std)
    library.manifest["preprocessing"] = how.to_json()
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "all.png"))).permute(2, 0, 1)[None]
    expected = pixels if exported[2] else how.normalise(pixels)
    assert library.prepare([tmp_path / "all.png"]).tobytes() == expected.numpy().tobytes()


def test_both_commands_answer_alike(exported, files, monkeypatch, capsys):
    arguments = [str(exported[0]), str(files[0]), "--top", "2", "--repeat", "4", "--json"]
    monkeypatch.setattr(sys, "argv", ["hawq.runtime", *arguments])
    assert main() == 0
    plain = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", ["hawq", "run", *arguments])
    with pytest.raises(SystemExit) as exit_:
        hawq()
    assert not exit_.value.code
    rich = json.loads(capsys.readouterr().out)
    for document in (plain, rich):
        latency = document.pop("latency")
        assert (latency["runs"], latency["batch"]) == (4, document["batch"] or 1)
        assert 0 < latency["p10_ms"] <= latency["median_ms"] <= latency["p90_ms"]
    assert plain == rich
    assert plain["threads"] == 1
    assert len(plain["images"][0]["top"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["absent", "{image}"], 2, "absent holds no compiled library; make one with `hawq export`"),
        (["{folder}", "absent.png"], 2, "absent.png does not exist (expected an image file)"),
        (["{folder}", "{text}"], 1, "is no image of a known format"),
        (["{folder}", "{cut}"], 1, "cannot be decoded"),
        (["{folder}", "{image}", "--top", "0"], 2, "top 0"),
        (["{folder}", "{image}", "--threads", "0"], 2, "--threads 0: give at least 1 thread"),
        (["{folder}", "{image}", "--tvm-runtime", "absent"], 2, "libtvm_runtime.so is not in absent: copy it"),
    ],
)
def test_bad_arguments_are_told(arguments, code, says, folder, files, monkeypatch, capsys):
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes(files[0].read_bytes()[:200])
    places = {"folder": folder, "image": files[0], "text": folder / "text.png", "cut": folder / "cut.png"}
    monkeypatch.setattr(sys, "argv", ["hawq.runtime", *(a.format(**places) for a in arguments)])
    assert main() == code
    out, err = capsys.readouterr()
    assert (out, err.startswith("error: ")) == ("", True)
    assert says in err


def test_a_torn_manifest_is_told(folder):
    path = folder / "manifest.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(HawqError, match="is not valid JSON"):
        read_manifest(folder)
    path.write_text(whole)
    change(folder, version=1)
    with pytest.raises(HawqError, match="has version 1, this hawq reads 4: run `hawq export` again"):
        read_manifest(folder)
    change(folder, version=4, batch="2", outputs=None)
    with pytest.raises(HawqError, match="does not say batch, outputs, or not as `hawq export` does"):
        read_manifest(folder)
    path.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        read_manifest(folder)


def test_a_damaged_library_is_told_before_it_is_loaded(folder):
    library = folder / "model.so"
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    with pytest.raises(HawqError, match=r"is not the file that manifest\.json describes"):
        open_library(folder)


def test_arrays_of_another_shape_or_type_are_refused(exported):
    library = open_library(exported[0])
    right = library.manifest["image"]["dtype"]
    for shape, dtype in [((1, 3, 8, 8), right), ((1, 3, SIZE, SIZE), "int64"), ((0, 3, SIZE, SIZE), right)]:
        with pytest.raises(HawqError, match=rf"wants images of {right}, shape \(N, 3, 16, 16\).* given: {dtype}"):
            library(np.zeros(shape, dtype))


def test_without_preprocessing_only_arrays_are_taken(folder, files):
    change(folder, preprocessing=None)
    library = open_library(folder)
    with pytest.raises(UsageError, match="does not say how images are prepared"):
        library.prepare(files)
    assert library(np.zeros((1, 3, SIZE, SIZE), library.manifest["image"]["dtype"])).shape == (1, 10)


def test_the_runtime_is_looked_for_where_the_user_says_then_beside_the_model(tmp_path, monkeypatch):
    places = {name: tmp_path / name for name in ("given", "named", "beside", "installed/tvm/lib")}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "libtvm_runtime.so").touch()
    given, named, beside, installed = places.values()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "installed")])
    monkeypatch.setenv(RUNTIME_VARIABLE, str(named))
    assert find_runtime(beside, given) == given
    assert find_runtime(beside) == named
    monkeypatch.delenv(RUNTIME_VARIABLE)
    assert find_runtime(beside) == beside
    (beside / "libtvm_runtime.so").unlink()
    assert find_runtime(beside) == installed
    (installed / "libtvm_runtime.so").unlink()
    with pytest.raises(UsageError, match=f"--tvm-runtime or {RUNTIME_VARIABLE}"):
        find_runtime(beside)


def test_a_cuda_library_without_a_gpu_is_told(folder, monkeypatch):
    change(folder, target="cuda", architectures=["sm_80"])
    monkeypatch.setattr(devices, "_DRIVER", "libabsent.so")
    assert devices.gpu_capability() is None
    monkeypatch.setattr("hawq.runtime.library.gpu_capability", devices.gpu_capability)
    with pytest.raises(HawqError, match="holds a CUDA library, and this machine shows no NVIDIA GPU"):
        open_library(folder)


class Driver:
    """Stand in for the driver of a machine with one GPU."""

    def __init__(self, capability, status=0):
        self.attributes, self.status = dict(zip((75, 76), capability, strict=True)), status

    def cuInit(self, flags):
        return self.status

    def cuDeviceGet(self, device, index):
        device._obj.value = 5
        return 0

    def cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = self.attributes[attribute]
        return 0 if device.value == 5 else 1


def test_the_driver_tells_which_gpu_is_here(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver((8, 6)))
    assert devices.gpu_capability() == (8, 6)
    devices.check_gpu(Path("x"), ["sm_80"], (8, 6))
    with pytest.raises(HawqError, match="holds code for sm_90, and this GPU is sm_86: export again with --arch sm_86"):
        devices.check_gpu(Path("x"), ["sm_90"], (8, 6))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver((8, 6), status=100))  # a driver without a GPU
    assert devices.gpu_capability() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a library of that name without these functions
    assert devices.gpu_capability() is None
