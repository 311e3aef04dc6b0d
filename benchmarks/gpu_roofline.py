"""Say how fast a GPU could run a layer: by its tensor cores or by its memory, whichever takes longer."""

from dataclasses import dataclass

__all__ = ["DEVICES", "Device", "Layer", "device", "limit_us"]


@dataclass(frozen=True)
class Device:
    """Peaks of a GPU, from NVIDIA's data sheets, without sparsity.

    Attributes:
        int8: multiplications and additions of int8 in a second.
        int4: of int4; as int8 where the tensor cores have no int4.
        bandwidth: bytes of memory in a second.
    """

    int8: float
    int4: float
    bandwidth: float


DEVICES = {
    "T4": Device(65e12, 130e12, 0.32e12),
    "A100": Device(312e12, 624e12, 1.555e12),
    "H100": Device(989.5e12, 989.5e12, 3.35e12),
    "H200": Device(989.5e12, 989.5e12, 4.8e12),
}
"""By a word of the name the driver gives."""


@dataclass(frozen=True)
class Layer:
    """What an op costs, together with the ops that its kernel computes behind it.

    Attributes:
        name: of the op.
        kernels: how many are launched.
        macs: products of the whole batch.
        moved: bytes of the tensors it reads and writes, each once.
        nibbles: whether both factors have 4 bits.
    """

    name: str
    kernels: int
    macs: int
    moved: int
    nibbles: bool


def device(name: str) -> Device | None:
    """Return the peaks of a GPU by the name the driver gives, None where they are not listed."""
    return next((peaks for word, peaks in DEVICES.items() if word in name.replace("-", " ").split()), None)


def limit_us(layer: Layer, peaks: Device) -> float:
    """Return the microseconds a layer takes at least."""
    products = layer.macs / (peaks.int4 if layer.nibbles else peaks.int8)
    return 1e6 * max(products, layer.moved / peaks.bandwidth)
