"""Compile an IntegerProgram into a folder that runs anywhere the target does; load it again."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor
from tvm import relax

from hawq.data.preprocessing import Preprocessing
from hawq.errors import HawqError, UsageError
from hawq.files import write_atomically, write_json
from hawq.integer import Certificate, IntegerProgram, Output, TensorType, certify
from hawq.outputs import plain
from hawq.runtime.calls import calls
from hawq.runtime.devices import check_cpu
from hawq.runtime.manifest import FORMAT, LIBRARY, MANIFEST, VERSION, file_facts, read_manifest
from tvm_export.backend import backend
from tvm_export.cuda.device import check_device
from tvm_export.link import Workshop
from tvm_export.lower import image_dtype, lower
from tvm_export.storage import Storage
from tvm_export.tuning.search import Tuning

__all__ = ["CompiledModel", "export", "fingerprint", "load"]

_ALIGNMENT = 64
"""Bytes; compiled CPU code takes aligned tensors for granted and does not check."""


def fingerprint(program: IntegerProgram) -> str:
    """Return a hash of the program's ops and integers: two programs with the same one give the same outputs."""
    digest = hashlib.sha256(repr(program.ops).encode())
    for name in sorted(program.tensors):
        digest.update(name.encode())
        digest.update(program.tensors[name].contiguous().numpy().tobytes())
    for name, output in program.outputs.items():
        digest.update(repr((name, output.tensor)).encode())
        digest.update(output.scale.numpy().tobytes())
    return digest.hexdigest()


def export(
    program: IntegerProgram,
    target: str,
    folder: Path,
    *,
    batch: int | None = 1,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    workshop: Workshop | None = None,
    tuning: Tuning | None = None,
    **options: Any,
) -> Path:
    """Compile a program for a target.

    Args:
        program: certified here.
        target: `llvm` or `cuda`.
        folder: gets `model.so` and `manifest.json`.
        batch: images per call of the library, None for any number.
        preprocessing: how image files become its input; without it a deployed library takes arrays only.
        class_names: by logit.
        workshop: where kernels are compiled and kept for the next export.
        tuning: plans that were measured to be faster than the default ones.
        options: of the target (`mcpu`; `arch`, `cuda_graph`), None for the default.

    Returns:
        The library.

    Raises:
        UsageError: unknown target or option value, any batch where the target needs a number, or class names that are
            not one for each logit.
        HawqError: an accumulator may leave int32, or the compiler failed.
    """
    if class_names is not None:
        logits = program.types[program.output.tensor].shape[0]
        if len(class_names) != logits:
            raise UsageError(f"{len(class_names)} class names for {logits} logits: give one for each, or none")
    certificate = certify(program)
    chosen = backend(target, **options)
    lowered = lower(program, chosen, batch, {} if tuning is None else tuning.plans)
    compiled = chosen.compile(lowered.module, workshop or Workshop())
    library = Path(folder) / LIBRARY
    write_atomically(library, lambda path: _export_library(compiled.executable, path))
    storage = {
        name: {
            "channels": s.channels,
            "packed": s.packed,
            "shape": s.type.shape,
            "bits": s.type.bits,
            "signed": s.type.signed,
        }
        for name, s in lowered.storage.items()
    }
    body = {
        **chosen.describe(),
        "arch": program.arch,
        "scheme": program.scheme,
        "batch": batch,
        "most": compiled.memory.images,
        "image": {"shape": program.input.out.shape, "dtype": image_dtype(program.input)},
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "class_names": None if class_names is None else list(class_names),
        "outputs": {
            name: {"tensor": output.tensor, "scale": output.scale.tolist()} for name, output in program.outputs.items()
        },
        "program": fingerprint(program),
        "certificate_sha256": _certificate_hash(certificate),
        "certificate": certificate.to_json(),
        "storage": storage,
        "tuning": None if tuning is None else tuning.to_json(),
        "memory": {"activations": compiled.memory.bytes},
        "library": file_facts(library),
        "versions": {"tvm": tvm.__version__, "torch": torch.__version__},
    }
    write_json(Path(folder) / MANIFEST, FORMAT, VERSION, body)
    return library


def _certificate_hash(certificate: Certificate) -> str:
    return hashlib.sha256(json.dumps(certificate.to_json(), sort_keys=True).encode()).hexdigest()


def _export_library(executable: tvm.runtime.Executable, path: Path) -> None:
    shared = path.with_name(path.name + ".so")  # the linker goes by the suffix
    try:
        executable.export_library(str(shared))
        shared.replace(path)
    finally:
        shared.unlink(missing_ok=True)


class CompiledModel:
    """Run an exported library.

    Args:
        module: the loaded library.
        manifest: what `export` wrote beside it.
    """

    def __init__(self, module: tvm.runtime.Module, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.batch: int | None = manifest["batch"]
        self.most: int = manifest["most"]
        self.storage = {
            name: Storage(TensorType(tuple(s["shape"]), s["bits"], s["signed"]), s["channels"], s["packed"])
            for name, s in manifest["storage"].items()
        }
        self._on_cuda = manifest["target"] == "cuda"
        self._machine = relax.VirtualMachine(module, tvm.cuda() if self._on_cuda else tvm.cpu())
        self._outputs = {
            name: Output(output["tensor"], torch.tensor(output["scale"], dtype=torch.float32))
            for name, output in manifest["outputs"].items()
        }

    def __call__(self, images: Tensor) -> Any:
        """Return the integers, int32, of any number of images, (N, C, H, W).

        Those of the only output, (N, classes) or (N, C, H, W), or of several by name.
        """
        return plain(self.integers(images))

    def logits(self, images: Tensor) -> Any:
        """Return float32 values in place of the integers."""
        found = self.integers(images)
        return plain({name: output.real(found[name]) for name, output in self._outputs.items()})

    def integers(self, images: Tensor) -> dict[str, Tensor]:
        """Return the integers of every output, int32, (N, ...), by name."""
        tensors = {name: output.tensor for name, output in self._outputs.items()}
        return self._collected("main", tensors, images)

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        """Return the codes of every tensor, int32, (N, C, H, W) or (N, F), by name, in program order."""
        return self._collected("trace", {name: name for name in self.storage}, images)

    def runner(self, images: Tensor) -> Callable[[], Any]:
        """Return a function that runs the library once on the images of its first call, for measuring."""
        batch, _ = next(self._batches(images))
        return lambda: self._machine["main"](batch)

    def _collected(self, entry: str, tensors: Mapping[str, str], images: Tensor) -> dict[str, Tensor]:
        """Return what an entry gives: name -> codes of the tensor that the name stands for."""
        parts: dict[str, list[Tensor]] = {name: [] for name in tensors}
        for results, count in self._run(entry, images):
            for (name, tensor), stored in zip(tensors.items(), results, strict=True):
                parts[name].append(self.storage[tensor].unpack(stored)[:count])
        return {name: torch.cat(codes) for name, codes in parts.items()}

    def _run(self, entry: str, images: Tensor) -> Any:
        for batch, count in self._batches(images):
            yield _to_torch(self._machine[entry](batch)), count

    def _batches(self, images: Tensor) -> Any:
        expected = self.manifest["image"]
        dtype = getattr(torch, expected["dtype"])
        if tuple(images.shape[1:]) != tuple(expected["shape"]) or images.dtype != dtype:
            raise HawqError(
                f"the library wants images of {dtype}, shape (N, {', '.join(map(str, expected['shape']))}); "
                f"given: {images.dtype}, {tuple(images.shape)}"
            )
        for part, missing in calls(len(images), self.batch, self.most):
            chunk = images[part]
            whole = torch.cat([chunk, chunk[:1].expand(missing, *chunk.shape[1:])]) if missing else chunk
            yield _aligned(whole.cuda() if self._on_cuda else whole), len(chunk)


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _to_torch(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "numpy"):
        return torch.from_numpy(np.array(value.numpy()))
    return [_to_torch(item) for item in value]


def load(folder: Path) -> CompiledModel:
    """Load what `export` wrote.

    Raises:
        UsageError: there is no library in the folder.
        HawqError: a file is torn, or this machine cannot run it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["target"] == "cuda":
        check_device(folder, manifest["architectures"])
    else:
        check_cpu(folder, manifest["mcpu"], manifest["features"])
    try:
        return CompiledModel(_load_fresh(folder / LIBRARY), manifest)
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        raise HawqError(f"{folder / LIBRARY} cannot be loaded on this machine ({error}); export it again") from error


def _load_fresh(library: Path) -> tvm.runtime.Module:
    """Load a copy under a name of its own: the dynamic loader answers a known path with what it loaded before."""
    with tempfile.TemporaryDirectory() as folder:
        return tvm.runtime.load_module(shutil.copy(library, folder))
