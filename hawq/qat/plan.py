"""Decide, from the graph and the bit config, which quantizer every tensor and every unit's weights get."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hawq.bitconfig import BitConfig, UnitQuantizers
from hawq.errors import HawqError, UsageError
from hawq.graph.ir import Conv2d, FloatGraph, Linear, Norm, Unary
from hawq.graph.structure import Domain, find_domains, pinned_units
from hawq.integer.ops import STREAM_BITS
from hawq.quantizers import ActivationGrid, QuantOptions, WeightNorm, activation_quantizer, weight_quantizer

__all__ = ["ActivationSpec", "QuantOptions", "QuantPlan", "WeightSpec", "plan"]

_DEFAULT_BITS = 8
_DEFAULT = "minmax"


@dataclass(frozen=True)
class ActivationSpec:
    """Bits, grid and method of one activation quantizer."""

    bits: int
    grid: ActivationGrid
    quantizer: str = _DEFAULT


@dataclass(frozen=True)
class WeightSpec:
    """Bits and method of the weights of one unit, and their `QuantOptions.weight_group` and `weight_norm`."""

    bits: int
    quantizer: str = _DEFAULT
    group: int = 1
    norm: str = WeightNorm.NONE.value


@dataclass(frozen=True)
class QuantPlan:
    """Hold the quantizers of a network.

    Attributes:
        domains: tensor name -> the domain whose quantizer it shares.
        stored: domain root -> quantizer of the codes that are kept; none for logits that stay accumulators.
        read: domain root -> quantizer through which units, tables and second factors read a tensor that is kept in
            16 bits.
        weights: unit or lone batch norm -> quantizer of its weights.
    """

    domains: Mapping[str, Domain]
    stored: Mapping[str, ActivationSpec]
    read: Mapping[str, ActivationSpec]
    weights: Mapping[str, WeightSpec]


def plan(graph: FloatGraph, bits: BitConfig, options: QuantOptions) -> QuantPlan:
    """Assign quantizers.

    The network's quantizers serve every unit but those that are pinned to 8 bits, where only range rules that work
    everywhere do; a quantizer that the bit config names is obeyed.

    Raises:
        HawqError: a unit has no bits, units that read one tensor ask for different bits or quantizers, or a quantizer
            does not have the width it is asked for.
        UsageError: no such quantizer, groups do not divide the channels of a unit, or normalising would leave it none.
    """
    missing = [name for name in graph.units if name not in bits.units]
    if missing:
        raise HawqError(f"bit config {bits.scheme} gives no bits for {len(missing)} units, first {missing[0]!r}")
    choice = _Choice(graph, bits, options)
    domains = find_domains(graph)
    stored, read = {}, {}
    for domain in dict.fromkeys(domains.values()):
        if domain.accumulator:
            continue
        grid = _grid(domain, options)
        spec = ActivationSpec(_DEFAULT_BITS, grid)
        if domain.readers:
            spec = ActivationSpec(choice.shared_bits(domain), grid, choice.shared_quantizer(domain))
        if domain.stream or not _produced_in_codes(graph, domain, spec):
            stored[domain.root] = ActivationSpec(STREAM_BITS, grid)
            if domain.readers or domain.narrow:
                read[domain.root] = spec
        else:
            stored[domain.root] = spec
    return QuantPlan(domains, stored, read, {name: choice.weights(name) for name in _weighted(graph)})


def _weighted(graph: FloatGraph) -> list[str]:
    return [name for name, node in graph.nodes.items() if isinstance(node.op, Conv2d | Linear | Norm)]


def _produced_in_codes(graph: FloatGraph, domain: Domain, spec: ActivationSpec) -> bool:
    """Tell whether the op at the root can put out the codes: any can with equal steps, units and tables with others."""
    uniform = activation_quantizer(spec.quantizer).uniform
    return uniform or isinstance(graph.nodes[domain.root].op, Conv2d | Linear | Unary)


class _Choice:
    """Choose bits and quantizers of units, and check that they go together."""

    def __init__(self, graph: FloatGraph, bits: BitConfig, options: QuantOptions) -> None:
        self._graph, self._bits, self._options, self._pinned = graph, bits, options, pinned_units(graph)

    def weights(self, name: str) -> WeightSpec:
        """Return the quantizer of a unit's weights; a lone batch norm has the default one."""
        if name not in self._bits.units:
            return WeightSpec(_DEFAULT_BITS)
        width = self._bits.units[name].weight
        quantizer, group, norm = self._named(name).weight, self._options.weight_group, self._options.weight_norm
        if quantizer is None:
            pinned = name in self._pinned and not weight_quantizer(self._options.weight_quantizer).everywhere
            quantizer = _DEFAULT if pinned else self._options.weight_quantizer
        method = weight_quantizer(quantizer)
        _check_width(f"{name}: weight", quantizer, method.widths, width)
        if method.scales_given:
            return WeightSpec(width, quantizer)
        if name in self._pinned:
            return WeightSpec(width, quantizer, min(group, 1))
        shape = self._graph.tensors[self._graph.units[name].op.weight].shape  # type: ignore[attr-defined]
        _check_rows(name, shape, group, WeightNorm(norm))
        return WeightSpec(width, quantizer, group, norm)

    def shared_bits(self, domain: Domain) -> int:
        """Return the bits in which all units read a domain."""
        wanted = {unit: self._bits.units[unit].activation for unit in domain.readers}
        self._check_equal(wanted, "activation bits")
        return wanted[domain.readers[0]]

    def shared_quantizer(self, domain: Domain) -> str:
        """Return the quantizer through which all units read a domain."""
        wanted = {unit: self._reading(unit) for unit in domain.readers}
        self._check_equal(wanted, "activation quantizer")
        quantizer, width = wanted[domain.readers[0]], self._bits.units[domain.readers[0]].activation
        _check_width(f"{domain.readers[0]}: activation", quantizer, activation_quantizer(quantizer).widths, width)
        return quantizer

    def _reading(self, unit: str) -> str:
        named = self._named(unit).activation
        if named is not None:
            return named
        pinned = unit in self._pinned and not activation_quantizer(self._options.act_quantizer).everywhere
        return _DEFAULT if pinned else self._options.act_quantizer

    def _named(self, unit: str) -> UnitQuantizers:
        return self._bits.quantizers.get(unit, UnitQuantizers())

    def _check_equal(self, wanted: Mapping[str, object], what: str) -> None:
        if len(set(wanted.values())) > 1:
            raise HawqError(
                f"bit config {self._bits.scheme}: units that read one tensor need the same {what}; given "
                + ", ".join(f"{unit}: {value}" for unit, value in wanted.items())
            )


def _check_width(where: str, quantizer: str, widths: range, width: int) -> None:
    if width not in widths:
        allowed = f"{widths[0]}..{widths[-1]}" if len(widths) > 1 else f"only {widths[0]}"
        raise UsageError(
            f"{where} quantizer {quantizer} cannot have {width} bits, allowed are {allowed}; choose another scheme "
            "or another quantizer"
        )


def _check_rows(name: str, shape: Sequence[int], group: int, norm: WeightNorm) -> None:
    """Check that groups divide the channels of a unit's weights, (O, ...), and hold enough to be normalised."""
    channels = shape[0]
    if group and channels % group:
        divisors = [n for n in range(1, channels + 1) if channels % n == 0]
        raise UsageError(
            f"{name}: {channels} output channels do not part into weight groups of {group}; allowed are "
            f"{', '.join(map(str, divisors))}, and 0 for the layer"
        )
    if norm.centres and math.prod(shape[1:]) * (group or channels) == 1:
        raise UsageError(
            f"{name}: weight norm {norm.value} takes the mean from a single weight, which leaves 0; choose var, or "
            "larger weight groups"
        )


def _grid(domain: Domain, options: QuantOptions) -> ActivationGrid:
    if not domain.signed:
        return ActivationGrid.UNSIGNED
    return ActivationGrid.AFFINE if options.asymmetric and not domain.stream else ActivationGrid.SYMMETRIC
