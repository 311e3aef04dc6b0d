"""Profiles: every unit gets the time of its own kernels, measured inside the compiled network."""

import json
import os

import pytest
import torch
import typer
from networks import NETWORKS, SIZE, build
from torch import nn
from typer.testing import CliRunner

from hawq.bitconfig import UnitBits
from hawq.cli.profile import _disturbance
from hawq.cli.profile import profile as profile_command
from hawq.errors import HawqError, UsageError
from hawq.graph.trace import trace
from hawq.hardware import Device
from search import check_fits, load_table
from tvm_export import Latency, timed
from tvm_export import profile as profile_module
from tvm_export.link import Workshop
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import lower, sites
from tvm_export.profile import profile, steps, uniform_program

FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


def _graph(name):
    return trace(build(name), (3, SIZE, SIZE))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_unit_takes_time(name):
    graph, heard = _graph(name), []
    programs = {bits: uniform_program(graph, name, bits) for bits in (FOUR, EIGHT, UnitBits(4, 8))}
    found = profile(programs, graph.units, "llvm", seconds=0.1, advance=heard.append)
    assert list(found) == list(programs)
    assert len(heard) == steps(len(programs))
    for measured in found.values():
        assert list(measured.units) == list(graph.units)
        for latency in (*measured.units.values(), measured.rest, measured.whole):
            assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
        assert measured.total_ms == pytest.approx(
            sum(x.median_ms for x in measured.units.values()) + measured.rest.median_ms
        )


def test_time_goes_to_the_unit_that_takes_it():
    small, large = (nn.Conv2d(c, c, 3, padding=1) for c in (16, 16))
    equal = [small, nn.ReLU(), large, nn.ReLU()]
    heavy = nn.Sequential(nn.Conv2d(16, 256, 3, padding=1), nn.ReLU())
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *equal, *heavy, nn.Conv2d(256, 16, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    graph = trace(model, (3, 32, 32))
    found = profile({EIGHT: uniform_program(graph, "net", EIGHT)}, graph.units, "llvm", seconds=0.2)[EIGHT]
    times = {name: latency.median_ms for name, latency in found.units.items()}
    assert max(times, key=times.get) == "6"
    assert times["6"] > 3 * max(times["2"], times["4"])  # 16 times the work of each


def test_ops_outside_the_units_are_the_rest():
    graph = _graph("Residual")
    programs = {EIGHT: uniform_program(graph, "net", EIGHT)}
    some = profile(programs, ["conv1"], "llvm", seconds=0.1)[EIGHT]
    every = profile(programs, graph.units, "llvm", seconds=0.1)[EIGHT]
    assert list(some.units) == ["conv1"]
    assert some.rest.median_ms > every.rest.median_ms


def test_uniform_programs_have_the_bits_asked_for():
    program = uniform_program(_graph("Residual"), "net", UnitBits(4, 8))
    assert program.scheme == "uniformW4A8"
    assert int(program.tensors["conv1.weight"].abs().max()) == 7
    assert int(program.tensors["head.weight"].abs().max()) == 127
    assert max(op.out.bits for op in program.ops if op.name == "conv1") == 8


def test_another_order_of_kernels_is_an_error():
    hook = timed._Hook(["first", "second"], 0)

    def swapped():
        for name in ("second", "first"):
            hook(None, name, True, None)
            hook(None, name, False, None)

    with pytest.raises(HawqError, match="another order"):
        hook.run(swapped)


def test_kernels_that_are_launched_in_a_row_give_the_same_result(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    program = uniform_program(_graph("Residual"), "net", FOUR)
    backend = LlvmBackend()
    network = timed.TimedNetwork(lower(program, backend, 1), backend, Workshop())
    image = timed.random_image(program, 1, "cpu", seed=0)
    plain = network(image)
    hook = timed._Hook(network._hook._expected, 3)
    network._hooked.set_instrument(hook)
    outputs = []
    times = hook.run(lambda: outputs.append(network._hooked["main"](image)))
    ((found,), (expected,)) = outputs[0], plain
    assert torch.equal(found, expected)
    assert len(times) == len(sites(program, LlvmBackend(), 1))
    assert min(times) > 0


def test_cuda_without_a_gpu_is_refused_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HawqError, match="shows none"):
        profile({}, [], "cuda")


def test_a_gpu_no_code_is_built_for_is_refused(monkeypatch):
    monkeypatch.setattr(profile_module, "present_device", lambda target: Device("Old GPU", ("sm_61",), 20))
    monkeypatch.setattr(profile_module, "present_architecture", lambda: None)
    with pytest.raises(HawqError, match="Old GPU"):
        profile({}, [], "cuda")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in an empty folder that holds a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TVM_NUM_THREADS", os.environ.get("TVM_NUM_THREADS", "1"))
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef tiny(num_classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    return tmp_path


def _command(*arguments):
    app = typer.Typer()
    app.command()(profile_command)
    result = CliRunner().invoke(app, ["-a", "net.py:tiny", "--seconds", "0.1", *arguments])
    if isinstance(result.exception, HawqError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_command_writes_a_table_without_weights(place):
    result = _command("--apart", "--json")
    document = json.loads(result.stdout)
    assert set(document["totals"]) == {"4", "8", "W4A8", "W8A4"}
    assert document["totals"]["4"]["whole"] > 0
    table = load_table(place / document["path"], "net.py:tiny")
    assert set(table.units["2"]) == {UnitBits(w, a) for w in (4, 8) for a in (4, 8)}
    assert set(table.units["0"]) == {EIGHT}
    assert not list(place.rglob("*.safetensors"))
    names: dict = {}
    exec((place / "net.py").read_text(), names)
    check_fits(table, trace(names["tiny"]().eval(), (3, 32, 32)), target="llvm")


def test_the_command_takes_batch_bits_and_a_file(place):
    _command("--bits", "8", "--batch", "2", "-o", "table.json")
    document = json.loads((place / "table.json").read_text())
    assert (document["batch"], document["threads"], document["options"]["bits"]) == (2, 1, "8")
    assert set(document["versions"]) == {"hawq", "torch", "tvm"}


@pytest.mark.parametrize(("whole", "doubtful"), [(3.0, False), (2.6, False), (2.0, True), (4.5, True)])
def test_a_sum_far_from_the_whole_is_doubted(whole, doubtful):
    unit, rest, undivided = (Latency(ms, ms, ms, 1) for ms in (2.0, 1.0, whole))
    measured = profile_module.Profile({"conv": unit}, rest, undivided)
    assert (_disturbance({EIGHT: measured}) is not None) == doubtful


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--bits", "1"], "2..8"), (["--bits", "x"], "2..8"), (["--target", "vulkan"], "known: cuda, llvm")],
)
def test_wrong_usage_is_told(place, arguments, message):
    with pytest.raises(UsageError, match=message):
        _command(*arguments)
