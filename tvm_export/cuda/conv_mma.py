"""Tell the tensor-core convolution of conv_mma.cuh about a layer: its constants, its weights, its plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm

from hawq.integer import ops as o
from tvm_export.cuda.chain import HEADERS, Chain
from tvm_export.cuda.channels import padding_word, requantization, scaling
from tvm_export.cuda.source import Argument, DeviceFunction, Launch, constants_text, start
from tvm_export.cuda.tiles import Gemm, Plan, choose
from tvm_export.definitions import Site, dense_weight
from tvm_export.nibbles import pack_nibbles
from tvm_export.storage import Storage, round_up

__all__ = ["MmaConv", "conv_mma", "suits"]

_HEADERS = ("instructions.cuh", *HEADERS, "epilogue.cuh", "conv_mma.cuh")

_FINISH_THREADS = 128
"""Of a block that adds up slices."""

_WIDENED = 32
"""Codes that widened operands multiply at once."""


def suits(site: Site) -> bool:
    """Tell whether the tensor cores take the op: a dense convolution or linear layer over codes of at most 8 bits."""
    dense = isinstance(site.op, o.Linear) or (isinstance(site.op, o.Conv2d) and site.op.groups == 1)
    return dense and site.inputs[0].type.bits <= 8


@dataclass(frozen=True)
class MmaConv:
    """A dense convolution or linear layer as conv_mma.cuh takes it.

    Attributes:
        site: the layer.
        nibbles: whether its weights are stored in 4 bits.
        plan: how it is cut up.
    """

    site: Site
    nibbles: bool
    plan: Plan

    @classmethod
    def of(cls, site: Site, architectures: Sequence[str], plan: Plan | None = None) -> "MmaConv":
        """Return a layer with the plan given, or else the one that suits the architectures."""
        nibbles = bool(np.abs(site.constants["weight"].astype(np.int64)).max(initial=0) <= 7)
        return cls(site, nibbles, plan or choose(_gemm(site, nibbles), architectures))

    @property
    def source(self) -> Storage:
        """How the input is stored."""
        return self.site.inputs[0]

    @property
    def gemm(self) -> Gemm:
        """The product it comes to."""
        return _gemm(self.site, self.nibbles)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block, in bytes."""
        tile, narrow_x, narrow_w = self.plan.tile, self.source.packed, self.nibbles
        row_x = tile.step // 2 if narrow_x and not narrow_w else tile.step
        row_w = tile.step // 2 if narrow_w and not narrow_x else tile.step
        return tile.stages * (tile.m * row_x + tile.n * row_w)

    def weight(self) -> np.ndarray:
        """Return the weights as rows of bytes, one for each channel, uint8.

        Channels are padded to whole tiles, rows to whole steps. Where the tensor cores get only one operand in bytes
        as it is stored, the weights are put into the order in which the input's codes arrive: widening yields the
        even codes of 32, then the odd ones. Of nibbles that meet bytes, the low ones hold the first 16 of 32 codes.
        """
        weight, tile = dense_weight(self.site), self.plan.tile
        outputs, channels, kh, kw = weight.shape
        spread = np.zeros((round_up(self.site.out.channels, tile.n), kh, kw, self.source.channels), np.int8)
        spread[:outputs, :, :, :channels] = weight.transpose(0, 2, 3, 1)
        rows = spread.reshape(len(spread), -1)
        step = tile.step * 2 if self.source.packed and self.nibbles else tile.step
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % step)))
        if self.source.packed != self.nibbles:
            groups = rows.reshape(len(rows), -1, _WIDENED)
            halves = (len(rows), -1, 2, _WIDENED // 2) if self.nibbles else (len(rows), -1, _WIDENED // 2, 2)
            rows = groups.reshape(halves).swapaxes(2, 3).reshape(rows.shape)
        return pack_nibbles(rows) if self.nibbles else rows.view(np.uint8)

    def constants(self) -> dict[str, np.ndarray]:
        """Return weights, bias, multiplier and shift, for whole tiles of channels."""
        return {"w": self.weight(), **scaling(self.site, round_up(self.site.out.channels, self.plan.tile.n))}

    def _sixteenfold_fits(self) -> bool:
        """Tell whether 16 times every sum of codes as stored stays in int32."""
        limit = max(abs(code) for code in self.source.type.range)
        weight = np.abs(self.site.constants["weight"].astype(np.int64))
        return 16 * limit * int(weight.reshape(len(weight), -1).sum(1).max(initial=0)) < 2**31

    @property
    def chain(self) -> Chain:
        """What becomes of its codes."""
        return Chain(self.site)

    def text(self) -> str:
        """Return the body of the struct P."""
        op: Any = self.site.op
        source, out, tile = self.source, self.site.out, self.plan.tile
        _, height, width = source.chw
        _, out_height, out_width = out.chw
        _, _, kernel_h, kernel_w = dense_weight(self.site).shape
        (stride_h, stride_w), (dilation_h, dilation_w) = getattr(op, "stride", (1, 1)), getattr(op, "dilation", (1, 1))
        padding = getattr(op, "padding", (0, 0, 0, 0))
        sizes = constants_text(
            {
                "Height": height, "Width": width, "PixelBytes": _pixel_bytes(source), "Pixels": self.gemm.pixels,
                "OutHeight": out_height, "OutWidth": out_width, "OutStored": out.channels,
                "KernelH": kernel_h, "KernelW": kernel_w, "StrideH": stride_h, "StrideW": stride_w,
                "Top": padding[0], "Left": padding[2], "DilationH": dilation_h, "DilationW": dilation_w,
                "Padded": any(padding), "NibblesX": source.packed, "NibblesW": self.nibbles,
                "Signed": source.type.signed, "ScaleW": self._sixteenfold_fits(),
                "Fill": padding_word(self.site),
                "Vector": self.gemm.vector,
                "TileM": tile.m, "TileN": tile.n, "WarpsM": tile.warps_m, "WarpsN": tile.warps_n,
                "Step": tile.step, "Stages": tile.stages, "Slices": self.plan.slices,
                "FinishThreads": _FINISH_THREADS, "Codes": self.chain.vector,
                **requantization(self.site),
            }
        )  # fmt: skip
        return f"{self.chain.structs}\n  {sizes}"

    def function(self, architectures: Sequence[str]) -> tvm.tirx.PrimFunc:
        """Return what starts the layer: a grid of tiles, and with slices a second kernel that adds up their sums."""
        plan, gemm, chain, text = self.plan, self.gemm, self.chain, self.text()
        tiles_m, tiles_n = plan.tiles(gemm)
        resident = plan.tile.blocks(gemm.vector, architectures)
        arguments = chain.arguments(self.constants())

        def tiles(taken: Sequence[Argument], body: str) -> Launch:
            convolve = DeviceFunction(_HEADERS, text, tuple(taken), body)
            grid = (tiles_m * tiles_n, plan.slices)
            return Launch(convolve, grid, plan.tile.threads, self.shared_bytes, resident)

        channels = "{bias, multiplier, shift}"
        if plan.slices == 1:
            call = f"hawq::convolve<P, P::kCodes>(x, w, {channels}, shared, hawq::Requantize<P>(), store);"
            return start(arguments, [tiles(arguments, f"{chain.store}\n  {call}")])
        sums = Argument("sums", (plan.slices * gemm.pixels * gemm.channels,), "int32")
        factors = [argument for argument in arguments if argument.name in ("x", "w")]
        rest = [argument for argument in arguments if argument not in factors]
        convolve = tiles([*factors, replace(sums, written=True)], "hawq::convolve_slice<P>(x, w, shared, sums);")
        body = f"{chain.store}\n  hawq::finish_slices<P>(sums, {channels}, store);"
        blocks = -(-gemm.pixels * gemm.channels // 4 // _FINISH_THREADS)
        finish = Launch(DeviceFunction(_HEADERS, text, (sums, *rest), body), (blocks, 1), _FINISH_THREADS)
        return start(arguments, [convolve, finish], workspace=sums)


def _pixel_bytes(source: Storage) -> int:
    return source.channels // 2 if source.packed else source.channels


def _gemm(site: Site, nibbles: bool) -> Gemm:
    (source,), weight = site.inputs, dense_weight(site)
    codes = weight.shape[2] * weight.shape[3] * source.channels
    row_bytes = codes // 2 if source.packed and nibbles else codes
    vector = 4 if _pixel_bytes(source) % 16 else 16
    return Gemm(site.batch * site.out.chw[1] * site.out.chw[2], site.out.channels, row_bytes, vector)


def conv_mma(site: Site, architectures: Sequence[str], plan: Plan | None = None) -> tuple[tvm.tirx.PrimFunc, Any]:
    """Return the kernel of a dense convolution or linear layer and its followers, and its constants.

    4-bit weights are packed two a byte.

    Args:
        site: the layer.
        architectures: that it is to run on.
        plan: how it is cut up, by default what suits the first architecture.
    """
    layer = MmaConv.of(site, architectures, plan)
    return layer.function(architectures), tuple(layer.chain.constants(layer.constants()).values())
