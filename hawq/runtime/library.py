"""Open an exported library and run it on images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hawq.errors import HawqError, UsageError
from hawq.images import FILTERS, fitted, open_image
from hawq.outputs import plain
from hawq.runtime.calls import calls
from hawq.runtime.devices import check_cpu, check_gpu, gpu_capability
from hawq.runtime.machine import Machine, find_runtime
from hawq.runtime.manifest import LIBRARY, MANIFEST, read_manifest
from hawq.runtime.storage import unpack

__all__ = ["Library", "open_library"]


def open_library(folder: Path, runtime: Path | None = None) -> "Library":
    """Load what `hawq export` wrote.

    Args:
        folder: of `model.so` and `manifest.json`.
        runtime: folder of TVM's runtime libraries, None to look for them.

    Raises:
        UsageError: there is no library in the folder, or no runtime.
        HawqError: a file is torn, or this machine cannot run it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    cuda = manifest["target"] == "cuda"
    if cuda:
        check_gpu(folder, manifest["architectures"], gpu_capability())
    else:
        check_cpu(folder, manifest["mcpu"], manifest["features"])
    machine = Machine((folder / LIBRARY).absolute(), cuda=cuda, runtime=find_runtime(folder, runtime))
    return Library(manifest, machine, str(folder / MANIFEST))


class Library:
    """An exported network: images in, integers out.

    Args:
        manifest: what `hawq export` wrote beside it.
        machine: holds its code.
        source: names the manifest in messages.
    """

    def __init__(self, manifest: dict[str, Any], machine: Machine, source: str = MANIFEST) -> None:
        self.manifest, self._machine, self._source = manifest, machine, source
        self.batch: int | None = manifest["batch"]
        self.most: int = manifest["most"]
        self.class_names: list[str] | None = manifest["class_names"]
        self._shape = tuple(manifest["image"]["shape"])
        self._dtype = np.dtype(manifest["image"]["dtype"])
        self._storage = {name: manifest["storage"][output["tensor"]] for name, output in manifest["outputs"].items()}
        self._scales = {name: np.array(output["scale"], np.float32) for name, output in manifest["outputs"].items()}

    def prepare(self, files: Sequence[Path]) -> np.ndarray:
        """Return image files as the library takes them, (N, C, H, W): raw pixels, uint8, or normalised, float32.

        Raises:
            UsageError: a file is missing, or the manifest does not say how images are prepared.
            HawqError: a file is no image.
        """
        how = self.manifest["preprocessing"]
        if how is None or how["interpolation"] not in FILTERS:
            raise UsageError(f"{self._source} does not say how images are prepared; export with `hawq export`")
        for file in files:
            if not Path(file).is_file():
                raise UsageError(f"{file} does not exist (expected an image file)")
        images = [fitted(open_image(file), how["size"], how["resize"], how["interpolation"]) for file in files]
        pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])
        if self._dtype == np.uint8:
            return pixels
        # single precision throughout, in the order of Preprocessing.normalise: the same bits as in training
        mean, std = (np.array(how[name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
        return (pixels.astype(np.float32) / np.float32(255) - mean) / std

    def __call__(self, images: np.ndarray) -> Any:
        """Return the integers of any number of images, (N, C, H, W).

        Those of the only output, int32, (N, classes) or (N, C, H, W), or of several by name.

        Raises:
            HawqError: images of another shape or type.
        """
        return plain(self.integers(images))

    def logits(self, integers: Any) -> Any:
        """Return float32 values in place of integers that a call returned: one multiplication each."""
        if isinstance(integers, Mapping):
            return {name: self._real(name, found) for name, found in integers.items()}
        return self._real(next(iter(self._scales)), integers)

    def integers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the integers of every output by name."""
        parts = [(self._run(batch), count) for batch, count in self._batches(images)]
        return {name: np.concatenate([found[name][:count] for found, count in parts]) for name in self._storage}

    def run_batch(self, images: np.ndarray) -> Any:
        """Return the integers of one whole batch; copies to and from the device included."""
        return plain(self._run(images))

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        machine = self._machine
        stored = machine.call("main", machine.upload(images))
        return {
            name: unpack(machine.download(tensor), how["shape"], signed=how["signed"], packed=how["packed"])
            for (name, how), tensor in zip(self._storage.items(), stored, strict=True)
        }

    def runner(self, images: np.ndarray) -> Callable[[], Any]:
        """Return a function that runs the library on a batch on the device and waits for no GPU, for measuring."""
        tensor = self._machine.upload(images)
        return lambda: self._machine.call("main", tensor)

    def _real(self, name: str, integers: np.ndarray) -> np.ndarray:
        return integers.astype(np.float32) * self._scales[name].reshape(-1, *[1] * (integers.ndim - 2))

    def _batches(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        if images.shape[1:] != self._shape or images.dtype != self._dtype or not len(images):
            wanted = ", ".join(map(str, self._shape))
            raise HawqError(
                f"the library wants images of {self._dtype}, shape (N, {wanted}), N at least 1; "
                f"given: {images.dtype}, {images.shape}"
            )
        for part, missing in calls(len(images), self.batch, self.most):
            chunk = images[part]
            yield np.concatenate([chunk, np.repeat(chunk[:1], missing, axis=0)]) if missing else chunk, len(chunk)
