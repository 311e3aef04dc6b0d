"""Decide, from the graph and the bit config, which quantizer every tensor gets."""

from collections.abc import Mapping
from dataclasses import dataclass

from hawq.bitconfig import BitConfig
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import Domain, find_domains
from hawq.integer.ops import STREAM_BITS
from hawq.quantizers.activation import ActivationGrid

__all__ = ["QuantOptions", "QuantPlan", "QuantizerSpec", "plan"]

_DEFAULT_BITS = 8


@dataclass(frozen=True)
class QuantOptions:
    """Choose how a network is quantized while it is trained.

    Attributes:
        fix_bn: fold the running statistics during training; otherwise use the batch's (evaluation always folds).
        act_range_momentum: of the running activation ranges, 0..1, or -1 for running minimum and maximum.
        asymmetric: give tensors with negative values unsigned codes and a zero point instead of signed codes.
    """

    fix_bn: bool = True
    act_range_momentum: float = 0.99
    asymmetric: bool = False


@dataclass(frozen=True)
class QuantizerSpec:
    """Bits and grid of one quantizer."""

    bits: int
    grid: ActivationGrid


@dataclass(frozen=True)
class QuantPlan:
    """Hold the quantizers of a network.

    Attributes:
        domains: tensor name -> the domain whose quantizer it shares.
        stored: domain root -> quantizer of the codes that are kept; none for logits that stay accumulators.
        read: domain root -> quantizer through which units read a residual stream.
    """

    domains: Mapping[str, Domain]
    stored: Mapping[str, QuantizerSpec]
    read: Mapping[str, QuantizerSpec]


def plan(graph: FloatGraph, bits: BitConfig, options: QuantOptions) -> QuantPlan:
    """Assign quantizers.

    Raises:
        HawqError: a unit has no bits, or units that read one tensor ask for different bits.
    """
    missing = [name for name in graph.units if name not in bits.units]
    if missing:
        raise HawqError(f"bit config {bits.scheme} gives no bits for {len(missing)} units, first {missing[0]!r}")
    domains = find_domains(graph)
    stored, read = {}, {}
    for domain in dict.fromkeys(domains.values()):
        if domain.accumulator:
            continue
        unit_bits = _reader_bits(domain, bits)
        grid = _grid(domain, options)
        stored[domain.root] = QuantizerSpec(STREAM_BITS if domain.stream else unit_bits or _DEFAULT_BITS, grid)
        if domain.stream and unit_bits is not None:
            read[domain.root] = QuantizerSpec(unit_bits, grid)
    return QuantPlan(domains, stored, read)


def _reader_bits(domain: Domain, bits: BitConfig) -> int | None:
    wanted = {unit: bits.units[unit].activation for unit in domain.readers}
    if len(set(wanted.values())) > 1:
        raise HawqError(
            f"bit config {bits.scheme}: units that read one tensor need the same activation bits; given "
            + ", ".join(f"{unit}: {b}" for unit, b in wanted.items())
        )
    return next(iter(wanted.values()), None)


def _grid(domain: Domain, options: QuantOptions) -> ActivationGrid:
    if not domain.signed:
        return ActivationGrid.UNSIGNED
    return ActivationGrid.AFFINE if options.asymmetric and not domain.stream else ActivationGrid.SYMMETRIC
