"""Hold the bit configs that HAWQ-V3 published for pytorchcv's ResNet-18 and ResNet-50: nine budgets each."""

from importlib.resources import as_file, files

from hawq.bitconfig import BitConfig, UnitBits
from hawq.files import read_json

__all__ = ["PUBLISHED_SOURCE", "published_config"]

PUBLISHED_SOURCE = "HAWQ-V3, arXiv 2011.10680"

_FILE = "published_configs.json"


def published_config(arch: str, scheme: str) -> BitConfig | None:
    """Return a published bit config, or None where there is none.

    Args:
        arch: `resnet18` or `resnet50`.
        scheme: `size`, `bops` or `latency` with 0.75, 0.5 or 0.25, for example `bops0.5`.
    """
    with as_file(files("hawq") / _FILE) as path:
        networks = read_json(path, "hawq-published-configs", 1)["networks"]
    network = networks.get(arch, {"bits": {}})
    if scheme not in network["bits"]:
        return None
    digits = zip(network["units"], network["bits"][scheme], strict=True)
    return BitConfig(arch, scheme, {unit: UnitBits(int(bits), int(bits)) for unit, bits in digits})
