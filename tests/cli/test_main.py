"""The `hawq` command as a shell sees it: help, exit codes, and what goes to stdout and stderr."""

import json
import sys

import pytest

from hawq.cli.main import _COMMANDS, main


@pytest.fixture
def hawq(monkeypatch, capsys, tmp_path):
    """Return a function that runs a command in an empty folder and returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hawq", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, *capsys.readouterr()

    return run


def test_help_lists_every_command(hawq):
    code, out, _ = hawq("--help")
    assert code == 0
    listed = {word for line in out.splitlines() for word in line.strip(" │|").split()[:1]}
    assert set(_COMMANDS) <= listed


def test_version(hawq):
    assert hawq("--version") == (0, f"hawq {__import__('hawq').__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "nonsense"),
        (["costs", "--nonsense"], "--nonsense"),
        (["costs", "--size", "0"], "--size"),
        (["costs", "-a", "resnet181"], "pytorchcv has no network 'resnet181'; similar: resnet18"),
        (["costs", "--scheme", "mine"], "name a scheme by its budget, such as bops0.5, or use uniform8"),
        (["costs", "--scheme", "bops0.3"], "make it with `hawq search -a resnet20_cifar10 --budget bops0.3`"),
        (["costs", "--scheme", "bit_config_resnet18_bops_0.5"], "is a scheme of resnet18"),
        (["costs", "--scheme", "absent.json"], "absent.json does not exist"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_reason_on_stderr(hawq, arguments, says):
    code, out, err = hawq(*arguments)
    assert (code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"quant_input": 8}', "gives no weight bits for 22 units"),
        ('{"stage9.unit1.quant_convbn1": 8}', "matches no unit; the nearest is"),
        ('{"format": "hawq-bit-config", "version": 1, "units"', "is not valid JSON"),
    ],
)
def test_failed_work_is_exit_code_1_with_the_reason_on_stderr(hawq, tmp_path, text, says):
    (tmp_path / "bits.json").write_text(text)
    code, out, err = hawq("costs", "--scheme", "bits.json")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert says in err


def test_json_puts_one_document_on_stdout(hawq):
    code, out, err = hawq("costs", "-a", "resnet20_cifar10", "--scheme", "uniform8", "--json")
    document = json.loads(out)
    assert code == 0
    assert "Totals" in err
    assert (document["arch"], document["scheme"], document["image_size"]) == ("resnet20_cifar10", "uniform8", 32)
    assert len(document["units"]) == 22
    total = document["totals"]["uniform8"]
    assert total["size"] == sum(unit["size"] for unit in document["units"].values()) == 270896
    assert total["bops"] == sum(unit["macs"] for unit in document["units"].values()) * 64
    assert document["paper_accounting"] is document["published"] is None
