"""Draw small random ops with their inputs, for every kind of op an IntegerProgram holds."""

import torch
from hypothesis import strategies as st

from hawq.integer import ops as o
from hawq.integer.arithmetic import dyadic, dyadic_shared, part_bits
from hawq.integer.geometry import pooled_size

BITS = st.sampled_from([2, 3, 4, 5, 8, 16])
SMALL_BITS = st.integers(2, 8)


@st.composite
def tensor_types(draw, shape, bits=BITS):
    width, signed = draw(bits), draw(st.booleans())
    plain = o.TensorType(shape, width, signed)
    zero_point = 0 if signed else draw(st.sampled_from([0, 0, 1, plain.range[1] // 2, plain.range[1]]))
    return o.TensorType(shape, width, signed, draw(st.floats(2.0**-10, 2.0, width=32)), zero_point)


def codes(generator, kind, batch=2):
    lo, hi = kind.range
    return torch.randint(lo, hi + 1, (batch, *kind.shape), generator=generator, dtype=torch.int32)


def _clamp(draw, kind):
    lo, hi = kind.range
    low = draw(st.sampled_from([lo, kind.zero_point]))
    return {"lo": low, "hi": draw(st.sampled_from([hi, max(low, hi - 1)]))}


def _accumulation(draw, generator, source, out, weight_shape):
    limit = (1 << (draw(SMALL_BITS) - 1)) - 1
    weight = torch.randint(-limit, limit + 1, weight_shape, generator=generator, dtype=torch.int8)
    if draw(st.booleans()):
        weight[0] = 0  # a dead channel
    bias = torch.randint(-(2**20), 2**20, weight_shape[:1], generator=generator, dtype=torch.int32)
    constants = {"weight": weight, "bias": bias}
    if out.bits != o.ACCUMULATOR_BITS:
        fan = weight[0].numel() * limit * max(abs(c - source.zero_point) for c in source.range)
        ratio = torch.rand(weight_shape[:1], generator=generator, dtype=torch.float64) * 4 * out.range[1] / max(fan, 1)
        if draw(st.booleans()):
            ratio = torch.pow(2.0, torch.floor(torch.log2(ratio + 1e-9)))  # powers of two make ties at .5
        multiplier, shift = dyadic(ratio + 1e-9)
        constants |= {"multiplier": multiplier.int(), "shift": shift.int()}
    return constants


def _geometry(draw, size, most=3):
    kernel = (draw(st.integers(1, min(most, size[0]))), draw(st.integers(1, min(most, size[1]))))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return kernel, stride


def _outputs(draw, shape):
    if draw(st.integers(0, 4)) == 0:
        return o.TensorType(shape, o.ACCUMULATOR_BITS, True), {"lo": -(2**31), "hi": 2**31 - 1}
    kind = draw(tensor_types(shape))
    return kind, _clamp(draw, kind)


@st.composite
def convolutions(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    size = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    source = draw(tensor_types((channels, *size)))
    kernel, stride = _geometry(draw, size)
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padded = (size[0] + padding[0] + padding[1], size[1] + padding[2] + padding[3])
    dilation = tuple(d if d * (k - 1) < p else 1 for d, k, p in zip(dilation, kernel, padded, strict=True))
    out_size = pooled_size(size, kernel, stride, padding, dilation)
    out, limits = _outputs(draw, (outputs, *out_size))
    constants = _accumulation(draw, generator, source, out, (outputs, channels // groups, *kernel))
    lo, hi = (code - source.zero_point for code in source.range)
    fill = draw(st.sampled_from([0, 0, lo, hi]))
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "fill": fill}
    op = o.Conv2d(name="op", inputs=("x",), out=out, **limits, **geometry)
    return op, [codes(generator, source)], [source], constants


@st.composite
def linears(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    source = draw(tensor_types((draw(st.integers(1, 20)),)))
    out, limits = _outputs(draw, (draw(st.integers(1, 9)),))
    constants = _accumulation(draw, generator, source, out, (out.shape[0], *source.shape))
    return o.Linear(name="op", inputs=("x",), out=out, **limits), [codes(generator, source)], [source], constants


@st.composite
def requantizations(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = (draw(st.integers(1, 5)), 3, 4)
    source, out = draw(tensor_types(shape)), draw(tensor_types(shape))
    ratio = draw(st.sampled_from([0.5, 0.25, 2.0**-8, source.scale / out.scale]))
    multiplier, shift = dyadic(torch.tensor([ratio], dtype=torch.float64))
    op = o.Requantize(name="op", inputs=("x",), out=out, **_clamp(draw, out))
    return op, [codes(generator, source)], [source], {"multiplier": multiplier.int(), "shift": shift.int()}


@st.composite
def cut_offs(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(tensor_types((draw(st.sampled_from([1, 3, 17, 33])), *draw(st.sampled_from([(), (3, 4)])))))
    x = codes(generator, kind)
    limit = x.flatten()[torch.randint(x.numel(), kind.shape[:1], generator=generator)]
    return o.Limit(name="op", inputs=("x",), out=kind), [x], [kind], {"limit": limit.int()}


@st.composite
def thresholds(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = (draw(st.sampled_from([1, 3, 17, 70])), *draw(st.sampled_from([(), (3, 4)])))
    source = draw(st.one_of(tensor_types(shape), st.just(o.TensorType(shape, o.ACCUMULATOR_BITS, True))))
    out = draw(tensor_types(shape))
    lowest, highest = out.range
    levels = draw(st.integers(2, min(256, highest - lowest + 1)))
    level = torch.randperm(min(highest - lowest + 1, 999), generator=generator)[:levels].sort().values + lowest
    x = codes(generator, source)
    rows = draw(st.sampled_from([1, shape[0]]))
    met = x.flatten()[torch.randint(x.numel(), (rows, levels - 1), generator=generator)]  # every one ties with a code
    end = torch.tensor(draw(st.sampled_from([-(2**31), 2**31 - 1])), dtype=torch.int32)  # always or never reached
    threshold = torch.where(torch.rand(met.shape, generator=generator) < 0.2, end, met).sort(1).values
    op = o.Threshold(name="op", inputs=("x",), out=out)
    return op, [x], [source], {"threshold": threshold.int(), "level": level.int()}


@st.composite
def additions(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = (draw(st.integers(1, 5)), 3, 4)
    a, b, out = (draw(tensor_types(shape)) for _ in range(3))
    exact = draw(st.booleans())
    ratios = [0.5, 0.25] if exact else [a.scale / out.scale, b.scale / out.scale]
    multiplier, shift = dyadic_shared(torch.tensor(ratios, dtype=torch.float64))
    op = o.Add(name="op", inputs=("a", "b"), out=out, **_clamp(draw, out))
    constants = {"multiplier": multiplier.int(), "shift": shift.int()}
    return op, [codes(generator, a), codes(generator, b)], [a, b], constants


@st.composite
def products(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    channels = draw(st.sampled_from([1, 5, 17]))
    shape, other = draw(st.sampled_from([((3, 4), (3, 4)), ((3, 4), (1, 1)), ((3, 4), ()), ((1, 1), (1, 1)), ((), ())]))
    a, out = (draw(tensor_types((channels, *shape))) for _ in range(2))
    b = draw(tensor_types((channels, *other), SMALL_BITS))
    ratio = draw(st.sampled_from([0.5, 2.0**-8, 1 / 255]))
    multiplier, shift = dyadic(torch.tensor([ratio], dtype=torch.float64))
    op = o.Mul(name="op", inputs=("a", "b"), out=out, **_clamp(draw, out))
    constants = {"multiplier": multiplier.int(), "shift": shift.int()}
    return op, [codes(generator, a, 2), codes(generator, b, 2)], [a, b], constants


@st.composite
def tables(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = (draw(st.sampled_from([1, 5, 17])), *draw(st.sampled_from([(), (3, 4)])))
    source, out = draw(tensor_types(shape, st.integers(1, 8))), draw(tensor_types(shape))
    table = codes(generator, o.TensorType((1 << source.bits,), out.bits, out.signed), 1)[0]
    return o.Table(name="op", inputs=("x",), out=out), [codes(generator, source)], [source], {"table": table}


@st.composite
def concatenations(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(tensor_types((1, 3, 4)))
    channels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    sources = [o.TensorType((c, 3, 4), kind.bits, kind.signed, kind.scale, kind.zero_point) for c in channels]
    out = o.TensorType((sum(channels), 3, 4), kind.bits, kind.signed, kind.scale, kind.zero_point)
    op = o.Concat(name="op", inputs=tuple(f"x{i}" for i in range(len(channels))), out=out)
    return op, [codes(generator, s) for s in sources], sources, {}


def _pooling(draw):
    size = (draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    kernel, stride = _geometry(draw, size)
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[0] // 2)),
               draw(st.integers(0, kernel[1] // 2)), draw(st.integers(0, kernel[1] // 2)))  # fmt: skip
    return size, kernel, stride, padding, pooled_size(size, kernel, stride, padding, (1, 1))


@st.composite
def max_pools(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    size, kernel, stride, padding, out_size = _pooling(draw)
    source = draw(tensor_types((draw(st.integers(1, 4)), *size)))
    out = o.TensorType((source.shape[0], *out_size), source.bits, source.signed, source.scale, source.zero_point)
    geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": (1, 1)}
    return o.MaxPool2d(name="op", inputs=("x",), out=out, **geometry), [codes(generator, source)], [source], {}


@st.composite
def average_pools(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    size, kernel, stride, padding, out_size = _pooling(draw)
    source = draw(tensor_types((draw(st.integers(1, 4)), *size)))
    out = draw(tensor_types((source.shape[0], *out_size)))
    shape = draw(st.sampled_from([(1, 1), out_size]))
    counts = torch.randint(1, kernel[0] * kernel[1] + 1, shape, generator=generator).double()
    multiplier, shift = dyadic(source.scale / (counts * out.scale))
    op = o.AvgPool2d(
        name="op", inputs=("x",), out=out, kernel=kernel, stride=stride, padding=padding, **_clamp(draw, out)
    )
    return op, [codes(generator, source)], [source], {"multiplier": multiplier.int(), "shift": shift.int()}


def _positions(draw, generator, source):
    size = tuple(draw(st.integers(1, 9)) for _ in range(2))
    rows, columns = (
        torch.randint(0, n, (m,), generator=generator) for n, m in zip(source.shape[1:], size, strict=True)
    )
    return size, {"row": rows.int(), "column": columns.int()}


@st.composite
def nearest_resizings(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    source = draw(tensor_types((draw(st.sampled_from([1, 4, 17])), draw(st.integers(1, 5)), draw(st.integers(1, 5)))))
    size, constants = _positions(draw, generator, source)
    out = o.TensorType((source.shape[0], *size), source.bits, source.signed, source.scale, source.zero_point)
    return o.Nearest(name="op", inputs=("x",), out=out), [codes(generator, source)], [source], constants


@st.composite
def bilinear_resizings(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    source = draw(tensor_types((draw(st.sampled_from([1, 4, 17])), draw(st.integers(1, 5)), draw(st.integers(1, 5)))))
    size, constants = _positions(draw, generator, source)
    bits = draw(st.sampled_from([part_bits(source.bits), 1]))  # halves make ties at .5
    for name in ("row", "column"):
        parts = torch.randint(0, (1 << bits) + 1, constants[name].shape, generator=generator, dtype=torch.int32)
        constants[f"{name}_part"] = parts
    out = draw(tensor_types((source.shape[0], *size)))
    ratio = draw(st.sampled_from([1.0, source.scale / out.scale])) * 4.0**-bits
    multiplier, shift = dyadic(torch.tensor([ratio], dtype=torch.float64))
    constants |= {"multiplier": multiplier.int(), "shift": shift.int()}
    op = o.Bilinear(name="op", inputs=("x",), out=out, part_bits=bits, **_clamp(draw, out))
    return op, [codes(generator, source)], [source], constants


@st.composite
def flattenings(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    source = draw(tensor_types((draw(st.integers(1, 4)), 2, 3)))
    out = o.TensorType((source.shape[0] * 6,), source.bits, source.signed, source.scale, source.zero_point)
    return o.Flatten(name="op", inputs=("x",), out=out), [codes(generator, source)], [source], {}


@st.composite
def quantized_inputs(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    out = draw(tensor_types((draw(st.integers(1, 4)), 3, 5), SMALL_BITS))
    lo, hi = out.range
    image = (torch.rand((2, *out.shape), generator=generator) * 3 - 1.5) * hi * out.scale
    if draw(st.booleans()):
        image = (torch.round(image / out.scale) + 0.5) * out.scale  # ties at .5, as far as the division keeps them
    return o.QuantizeInput(name="op", inputs=(), out=out, lo=lo, hi=hi), [image], [], {}


@st.composite
def pixel_inputs(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    out = draw(tensor_types((3, 3, 5), SMALL_BITS))
    lo, hi = out.range
    std = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
    multiplier, shift = dyadic_shared(1 / (255 * std * out.scale))
    offset = torch.round((out.zero_point - 0.45 / (std * out.scale)) * 2.0 ** int(shift)).long()
    image = torch.randint(0, 256, (2, *out.shape), generator=generator, dtype=torch.uint8)
    constants = {"multiplier": multiplier, "offset": offset, "shift": shift.int()}
    return o.PixelInput(name="op", inputs=(), out=out, lo=lo, hi=hi), [image], [], constants


CASES = {
    o.QuantizeInput: quantized_inputs(),
    o.PixelInput: pixel_inputs(),
    o.Conv2d: convolutions(),
    o.Linear: linears(),
    o.Requantize: requantizations(),
    o.Limit: cut_offs(),
    o.Threshold: thresholds(),
    o.Add: additions(),
    o.Mul: products(),
    o.Table: tables(),
    o.Concat: concatenations(),
    o.MaxPool2d: max_pools(),
    o.AvgPool2d: average_pools(),
    o.Nearest: nearest_resizings(),
    o.Bilinear: bilinear_resizings(),
    o.Flatten: flattenings(),
}
