"""Plans measured in a real network: equal layers are one, integers are checked, the library follows the plans."""

from dataclasses import replace

import pytest
import torch
from fake_rig import FakeRig
from networks import SIZE, build

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError
from hawq.graph.trace import trace
from tvm_export import export, load, verify
from tvm_export.link import Workshop
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import sites
from tvm_export.profile import uniform_program
from tvm_export.tuning import NetworkRig, TuningLog, layers, tune
from tvm_export.tuning.rig import Effort


def program(name="Residual", bits=8):
    return uniform_program(trace(build(name), (3, SIZE, SIZE)), name, UnitBits(bits, bits))


def test_equal_layers_are_one_and_threads_set_logs_apart():
    backend = LlvmBackend()
    model = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))).eval()
    equal = uniform_program(trace(model, (16, 9, 9)), "net", UnitBits(8, 8))
    placed = sites(equal, backend, 1)
    found = layers(placed, backend, 1)
    assert [len(layer.ops) for layer in found] == [3, 1]  # the last one gives logits
    assert sum(len(layer.ops) for layer in found) == 4
    assert {layer.key for layer in found}.isdisjoint(layer.key for layer in layers(placed, backend, 2))
    assert all(layer.plans == tuple(backend.plans(placed[1])) for layer in found[:1])


QUICK = Effort(0.0, 3, 3, builds=2)


def other_plans(program, backend):
    """Return the last plan of every layer."""
    return {op: layer.plans[-1] for layer in layers(sites(program, backend, 1), backend, 1) for op in layer.ops}


def test_kernels_are_timed_inside_the_network():
    backend, subject = LlvmBackend(), program()
    rig, plans = NetworkRig(subject, backend, 1, Workshop()), other_plans(subject, backend)
    times = rig.kernels(plans, QUICK)
    assert set(times) == set(plans)
    assert all(len(side) == 6 and min(side) >= 0 for pair in times.values() for side in pair)
    default, planned = rig.network(plans, QUICK)
    assert min(default + planned) > 0


def test_other_integers_are_an_error():
    class Wrong(LlvmBackend):
        def kernel(self, site):
            kernel = super().kernel(site)
            if site.plan is None or site.op.name != "conv2":
                return kernel
            weight, bias, *others = kernel.constants
            return replace(kernel, constants=(weight, bias + 10_000, *others))

    backend, subject = Wrong(), program()
    plans = other_plans(subject, backend)
    rig = NetworkRig(subject, backend, 1, Workshop())
    with pytest.raises(HawqError, match=f"other integers than by default.*conv2: {plans['conv2']}"):
        rig.kernels(plans, QUICK)


def test_a_tuned_library_is_exact_says_its_plans_and_is_the_same_every_time(tmp_path):
    backend, subject = LlvmBackend(), program(bits=4)
    found = layers(sites(subject, backend, 1), backend, 1)
    fast = {op: layer.neighbours(layer.plans[0])[-1] for layer in found for op in layer.ops}
    rig = FakeRig(lambda op, plan, effort: 0.5 if plan == fast[op] else 1.0)
    tuning = tune(found, lambda: rig, TuningLog(tmp_path / "log"), threads=1, seconds=1e6, clock=rig.clock)
    assert tuning.plans == fast
    libraries = [export(subject, "llvm", tmp_path / name, tuning=tuning).read_bytes() for name in ("a", "b")]
    assert libraries[0] == libraries[1]
    assert libraries[0] != export(subject, "llvm", tmp_path / "default").read_bytes()
    compiled = load(tmp_path / "a")
    assert compiled.manifest["tuning"] == tuning.to_json()
    assert set(compiled.manifest["tuning"]["plans"]) == set(fast)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert verify(subject, compiled, images).exact
