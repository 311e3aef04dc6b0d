"""Put an op, and what may stand behind it in one kernel, beside the codes that must come out; check CUDA kernels."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from convolution_cases import generator, site_of
from cuda_emulator import EmulatedKernels
from kernel_runner import store

from hawq.integer import TensorType, execute_op
from hawq.integer import ops as o
from hawq.integer.arithmetic import dyadic_shared
from tvm_export.definitions import Site


@dataclass(frozen=True)
class KernelCase:
    """A kernel, the stored tensors that it reads, and the codes of every tensor that it writes."""

    site: Site
    values: list[np.ndarray]
    expected: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Behind:
    """What follows an op: the addition of another tensor, then requantizations of what there is; (bits, signed, zero).

    `kept` says whether others read the sum, or without a sum the op's own codes.
    """

    other: tuple[int, bool, int] | None
    total: tuple[int, bool, int] | None
    reads: tuple[tuple[int, bool, int], ...]
    kept: bool


ALONE = Behind(None, None, (), kept=True)
ADDED = {
    "a stream": Behind((16, False, 0), (16, False, 0), ((8, False, 0),), kept=True),
    "the end of a stream": Behind((16, True, 0), (16, False, 0), (), kept=True),
    "codes": Behind((8, True, 0), (16, True, 0), ((4, False, 0),), kept=False),
    "nibbles, read twice": Behind((4, False, 3), (8, False, 7), ((4, True, 0), (8, True, 0)), kept=True),
}
REQUANTIZED = {
    "requantized": Behind(None, None, ((4, False, 2),), kept=False),
    "requantized and kept": Behind(None, None, ((8, True, 0),), kept=True),
}


def behind(case, index):
    """Return, in turns, what may stand behind an op."""
    summable = isinstance(case[0], o.Conv2d | o.Linear) and not case[0].accumulates
    choices = [ALONE, *(ADDED.values() if summable else ()), *REQUANTIZED.values()]
    return choices[index % len(choices)]


def kernel_case(case, behind=ALONE):
    """Return the kernel of (op, inputs, types, constants) and of what stands behind the op."""
    op, inputs, types, _ = case
    head, last, followers = site_of(*case), op.name, []
    values = [store(s, x) for s, x in zip(head.inputs, inputs, strict=True)] if types else [inputs[0].numpy()]
    tensors = {op.name: (op.out, execute_op(*case))}
    if behind.other:
        tensors["other"] = _random(op.out.shape, behind.other, len(values[0]))
        followers.append(_follower(o.Add, "sum", ("other", last), behind.total, tensors))
        values.append(store(followers[0].inputs[0], tensors["other"][1]))
        last = "sum"
    for index, kind in enumerate(behind.reads):
        followers.append(_follower(o.Requantize, f"read{index}", (last,), kind, tensors))
    unread = ({op.name} - {last}) | (set() if behind.kept else {last})
    head, *followers = (replace(site, kept=site.op.name not in unread) for site in (head, *followers))
    site = replace(head, followers=tuple(followers))
    return KernelCase(site, values, {name: tensors[name][1] for name in site.written})


def _random(shape, kind, batch):
    bits, signed, zero = kind
    low, high = TensorType(shape, bits, signed).range
    codes = torch.randint(low, high + 1, (batch, *shape), generator=generator(5), dtype=torch.int32)
    return TensorType(shape, bits, signed, 1.0, zero), codes


def _follower(kind, name, inputs, target, tensors):
    """Return the site of an op whose codes fill the target's range, and put them beside those it reads."""
    types, codes = zip(*(tensors[source] for source in inputs), strict=True)
    bits, signed, zero = target
    out = TensorType(types[0].shape, bits, signed, 1.0, zero)
    ratios = [out.range[1] / len(types) / source.range[1] for source in types]
    multiplier, shift = dyadic_shared(torch.tensor(ratios, dtype=torch.float64))
    constants = {"multiplier": multiplier.int(), "shift": shift.int()}
    op = kind(name=name, inputs=inputs, out=out, lo=out.range[0], hi=out.range[1])
    tensors[name] = out, execute_op(op, list(codes), list(types), constants)
    return site_of(op, codes, types, constants)


def check(cases, folder, architectures, make=None, *, both_ways=False):
    """Compare kernels with the reference, every integer they write.

    Args:
        cases: KernelCases.
        folder: for the compiler.
        architectures: whose branches are taken.
        make: returns the kernel of a site; by default as the backend does.
        both_ways: let asynchronous copies come early as well as late.
    """
    kernels = EmulatedKernels([case.site for case in cases], make)
    for arch in architectures:
        emulator = kernels.on(arch, folder)
        for index, case in enumerate(cases):
            for eager in (False, True) if both_ways else (False,):
                found = kernels.run(emulator, index, case.values, eager=eager)
                assert list(found) == list(case.expected)
                for name, codes in case.expected.items():
                    assert found[name].equal(codes), (arch, case.site.op, name, eager)
