"""Count size and BOPS as HAWQ-V3's table seems to, so that our figures can be laid beside the published ones.

The paper (arXiv 2011.10680) documents no accounting beyond the formulas of `search.costs`, and its table differs from
them by up to 3%. What follows is *inferred* from the 20 published rows of ResNet-18 and ResNet-50 with 4 and 8 bits and
holds for nothing else. With `mid` = every convolution but the first, MiB = 2^20 bytes and MB = 10^6 bytes:

    BOPS = [ sum_mid MAC_i w_i a_i / 1024 + (FLOPs - sum_mid MAC_i) / 16 ] / 10^6
    size = sum_mid n_i w_i / 8 + constant        in MiB for ResNet-18, in MB for ResNet-50

FLOPs is the figure of pytorchcv's model list, which counts batch norm, activations and pooling: all but the mid
convolutions is taken at 8 bits. BOPS have no fitted constant, sizes have one per network. `uniform8` is the floating
row over 16 and over 4, and the size of `uniform4` is exact.

Rounded as printed, this gives 19 of the 20 BOPS (ResNet-18 bops0.5 gives 73, printed 72) and all 20 sizes, provided
that ResNet-50 size0.25 is the optimum and not the shipped assignment, which gives 166 G and 15.9 MB where 168 and 16.0
are printed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hawq.bitconfig import UnitBits
from search.costs import COSTS, UnitFacts, total_cost
from search.model_zoo import published_figures

__all__ = ["PaperFigures", "paper_figures"]


@dataclass(frozen=True)
class PaperFigures:
    """State size in the paper's MB and bit operations for one image in its G, as inferred."""

    size_mb: float
    bops_g: float


@dataclass(frozen=True)
class _Network:
    """Hold what the accounting of one network is made of.

    Attributes:
        macs: of all convolutions and the classifier, 224x224; tells the network from others of its name.
        flops: as pytorchcv's model list has them.
        megabyte: bytes.
        rest: added to the mid convolutions' size, in `megabyte`: for ResNet-18 all but the main path's convolutions at
            8 bits, which counts the downsample ones twice; for ResNet-50 fitted (1.403 .. 1.430 fit).
    """

    macs: int
    flops: float
    megabyte: float
    rest: float


_NETWORKS = {
    "resnet18": _Network(1_814_073_344, 1820.41e6, 2**20, 0.671),
    "resnet50": _Network(3_857_973_248, 3877.95e6, 1e6, 1.416),
}


def paper_figures(
    arch: str, facts: Mapping[str, UnitFacts], pinned: Collection[str], bits: Mapping[str, UnitBits]
) -> PaperFigures | None:
    """Return size and BOPS in the paper's accounting, or None where nothing is known of it.

    Args:
        arch: the network's name; known are `resnet18` and `resnet50` at 224x224 with 1000 classes.
        facts: of every unit.
        pinned: the first convolution and the classifier.
        bits: of every unit; known are 4 and 8 for weights and input alike, the pinned ones at 8.
    """
    network = _NETWORKS.get(arch)
    floating = published_figures(arch, "float32")
    if network is None or floating is None or network.macs != sum(unit.macs for unit in facts.values()):
        return None
    middle = {bits[name] for name in facts if name not in pinned}
    if not middle <= {(4, 4), (8, 8)} or any(bits[name] != (8, 8) for name in pinned):
        return None
    if middle == {(8, 8)}:
        return PaperFigures(floating.size_mb / 4, floating.bops_g / 16)
    units = [unit for unit in facts.values() if unit.name not in pinned]
    size = total_cost(COSTS["size"], units, bits) / network.megabyte + network.rest
    if middle == {(4, 4)}:
        size = COSTS["size"].scaled(total_cost(COSTS["size"], facts.values(), bits))
    rest = (network.flops - sum(unit.macs for unit in units)) / 16
    return PaperFigures(size, (total_cost(COSTS["bops"], units, bits) / 1024 + rest) / 1e6)
