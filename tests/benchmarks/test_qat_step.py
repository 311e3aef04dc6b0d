"""The benchmark of a training step: every side trains, and what is missing is said."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from hawq.integer.arithmetic import dyadic

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--batch", "2", "--size", "32", "--repeat", "1", "--json"]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("qat_step")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("qat_step", "hawq_qat"):
            sys.modules.pop(name, None)


def run(script, *arguments):
    app = typer.Typer()
    app.command()(script.benchmark)
    return CliRunner().invoke(app, [*TINY, *arguments])


def test_ours_and_the_published_algorithm_are_timed_beside_the_float_step(script):
    result = run(script, "--only", "uniform4", "--only", "uniform8-fix-BN", "--only", "published")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["batch"], document["size"], document["repeat"]) == (2, 32, 1)
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert list(figures) == ["float", "uniform8-fix-BN", "uniform4", "published"]
    assert figures["float"]["ratio"] == 1
    for figure in figures.values():
        assert figure["seconds"] / figures["float"]["seconds"] == figure["ratio"]  # of a single round


def test_an_unknown_side_is_refused(script):
    result = run(script, "--only", "eager")
    assert result.exit_code == 2
    assert "brevitas" in result.output


@pytest.mark.parametrize("package", ["brevitas", "torchao"])
def test_a_missing_package_is_named(script, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    figure = json.loads(run(script, "--only", package).stdout)["figures"][1]
    assert figure["note"] == f"not measured: pip install {package}"
    assert (figure["seconds"], figure["ratio"]) == (None, None)


def test_the_published_algorithm_computes_the_same_network(script):
    """Its 8-bit logits are near the float ones, and the layers it wraps get gradients."""
    from hawq_qat import HawqResNet18

    case = script.Case(2, 64, "cpu")
    network = case.network()
    with torch.no_grad():
        expected = network(case.images())
    logits = HawqResNet18(network).train()(case.images())
    assert float((logits.detach() - expected).norm() / expected.norm()) < 0.05  # 8-bit noise; measured 0.027
    logits.sum().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in network.parameters())


def test_the_dyadic_numbers_of_the_host_are_ours(script):
    from hawq_qat import dyadic_on_host

    ratio = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1 + 1e-4
    multiplier, shift = dyadic_on_host(ratio)
    assert multiplier.long().equal(dyadic(ratio)[0])
    assert shift.long().equal(dyadic(ratio)[1])
