"""`hawq train` from its command line to its files."""

import json

import pytest
import torch
import typer
from safetensors.torch import load_file
from tiny_run import set_up
from typer.testing import CliRunner

from hawq.checkpoint import read_checkpoint
from hawq.cli.train import train
from hawq.errors import HawqError, UsageError

NETWORK = ("-a", "net.py:tiny", "--weights", "float.safetensors", "--data", "npz", "--data-path", "images.npz")
RUN = (*NETWORK, "--save-path", "run", "--quant-scheme", "uniform8")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Return a function that trains in an empty folder and returns the JSON document."""
    set_up(tmp_path)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(train)

    def run(*arguments):
        result = CliRunner().invoke(app, [*RUN, "--json", *arguments])
        if isinstance(result.exception, HawqError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def settings():
    return read_checkpoint("run/uniform8/checkpoint.pt")["settings"]


def test_hawqs_options_train_resume_and_evaluate(command, tmp_path):
    given = ("--epochs", "1", "--lr", "0.0001", "--batch-size", "128", "--act-range-momentum=0.99", "--wd", "1e-4",
             "--data-percentage", "0.5", "--fix-BN")  # fmt: skip
    first = command(*given)
    folder = tmp_path / "run" / "uniform8"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"best.pt", "checkpoint.pt", "metrics.csv", "metrics.jsonl", "report.json", "confusion.csv"}
    found = settings()
    assert (found["epochs"], found["lr"], found["batch_size"], found["weight_decay"]) == (1, 1e-4, 128, 1e-4)
    assert found["schedule"] == "cosine:floor=0"  # of the recipe for npz
    assert command("--resume", str(folder / "best.pt"), "-e") == first
    command(*given, "--epochs", "2", "--resume", str(folder / "checkpoint.pt"))
    assert [row["epoch"] for row in read_checkpoint(folder / "checkpoint.pt")["history"]] == [1, 2]


def test_every_option_reaches_the_training(command):
    command(
        "--epochs", "2", "-b", "4", "--accumulate", "3", "--mixup", "0.4", "--ema", "0.9", "--patience", "1",
        "--optimizer", "adamw:beta2=0.99", "--no-decay-small", "--group", "*.weight:lr=0.5", "--group", "*.bias:wd=0",
        "--clip-grad-norm", "2", "--lr-schedule", "sgdr:period=3", "--warmup", "1", "--lr-interval", "epoch",
        "--amp", "bf16", "--channels-last", "--seed", "3", "--evaluate-times", "2",
    )  # fmt: skip
    assert settings() == {
        "epochs": 2, "batch_size": 4, "accumulate": 3, "mixup": 0.4, "average": 0.9, "patience": 1, "evaluations": 2,
        "optimizer": "adamw:beta1=0.9,beta2=0.99,eps=1e-08", "decay_small": False, "weight_decay": 1e-4,
        "groups": ["*.weight:lr=0.5", "*.bias:wd=0"], "clip_norm": 2.0,
        "lr": 0.01, "schedule": "sgdr:period=3,growth=2,floor=0", "warmup": 1.0, "interval": "epoch",
        "precision": "bf16", "channels_last": True, "compile": False, "seed": 3, "device": "cpu",
    }  # fmt: skip


def test_momentum_and_nesterov_are_of_sgd(command):
    command("--epochs", "1", "--momentum", "0.5", "--nesterov")
    assert settings()["optimizer"] == "sgd:momentum=0.5,nesterov=true"
    with pytest.raises(UsageError, match="adamw has no momentum; those are of sgd"):
        command("--optimizer", "adamw", "--momentum", "0.5")


def test_smoothing_and_the_teacher_change_the_weights(command, tmp_path):
    weights = []
    for given in ((), ("--label-smoothing", "0.5"), ("--distill-method", "KD_naive", "--temperature", "2")):
        command("--epochs", "1", *given)
        weights.append(read_checkpoint(tmp_path / "run/uniform8/checkpoint.pt")["model"]["units.stem.weight"])
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_hawqs_quantization_options_reach_the_model(command):
    command(
        "--epochs", "0", "--no-fix-BN", "--fix-BN-threshold", "7", "--act-percentile", "99", "--weight-percentile",
        "98.5", "--no-channel-wise", "--bias-bit", "16", "--quant-mode", "asymmetric", "--fixed-point-quantization",
        "--act-range-momentum", "-1", "--pad-after-quant", "--bn-momentum", "0.05", "--sign-gradient", "ste",
        "--weight-norm", "var", "--step-gradient", "scale-fan",
    )  # fmt: skip
    assert read_checkpoint("run/uniform8/checkpoint.pt")["options"] == {
        "fix_bn": False, "fix_bn_after": 7, "act_quantizer": "percentile", "act_percentile": 99.0, "clip_stds": 3.0,
        "weight_quantizer": "percentile", "weight_percentile": 98.5, "weight_group": 0, "bias_bits": 16,
        "asymmetric": True, "fixed_point": True, "act_range_momentum": -1.0, "pad_after_quant": True,
        "bn_momentum": 0.05, "sign_gradient": "ste", "weight_norm": "var", "step_gradient": "scale-fan",
    }  # fmt: skip


def test_channels_that_share_a_scale(command):
    for given, group in ((), 1), (("--weight-group", "2"), 2), (("--no-channel-wise", "--weight-group", "0"), 0):
        command("--epochs", "0", *given)
        assert read_checkpoint("run/uniform8/checkpoint.pt")["options"]["weight_group"] == group


def test_another_normalisation_begins_what_weights_learned_anew(command, caplog):
    command("--epochs", "0", "--weight-quantizer", "lsq")
    command("--epochs", "0", "--weight-quantizer", "lsq", "--weight-norm", "var", "--resume", "run/uniform8/best.pt")
    assert "the weight quantizers of 4 units start anew" in caplog.text


@pytest.mark.parametrize(("scheme", "given", "fixed"), [
    ("uniform4", (), True), ("uniform2", (), False),
    ("uniform2", ("--fix-BN",), True), ("uniform4", ("--no-fix-BN",), False),
])  # fmt: skip
def test_statistics_are_fixed_unless_bits_are_few(command, scheme, given, fixed):
    command("--epochs", "0", "--quant-scheme", scheme, *given)
    assert read_checkpoint(f"run/{scheme}/checkpoint.pt")["options"]["fix_bn"] is fixed


def test_another_scheme_begins_with_the_weights_and_ranges_of_a_checkpoint(command):
    command("--epochs", "1")
    for scheme, flags in (("uniform4", ()), ("uniform3", ("--resume-quantize",))):
        command("--quant-scheme", scheme, "--epochs", "0", "--resume", "run/uniform8/best.pt", *flags)
    eight, four, three = (read_checkpoint(f"run/uniform{bits}/checkpoint.pt")["model"] for bits in (8, 4, 3))
    assert eight["units.conv2.weight"].equal(four["units.conv2.weight"])
    name = "stored.conv1.high"
    assert eight[name].equal(three[name])
    assert not eight[name].equal(four[name])  # calibrated anew, with the trained weights


def test_checkpoint_iter_dumps_every_feature_map(command, tmp_path):
    command("--epochs", "2", "-b", "8", "--checkpoint-iter", "2")
    tensors = load_file(tmp_path / "run/uniform8/features-2.safetensors")
    assert {"stem", "conv1", "conv1.scale", "conv1.zero_point", "head"} <= tensors.keys()
    assert tensors["conv1"].dtype == torch.uint8


def test_hawqs_own_checkpoint_is_evaluated_and_trained_on(command, tmp_path):
    """Its float kind: a state dict inside a training checkpoint, from DataParallel."""
    weights = {f"module.{name}": tensor * 1.5 for name, tensor in load_file("float.safetensors").items()}
    torch.save({"epoch": 3, "arch": "tiny", "state_dict": weights, "best_acc1": 1.0}, "hawq.pth.tar")
    command("--epochs", "0", "--resume", "hawq.pth.tar")
    found = read_checkpoint("run/uniform8/checkpoint.pt")["model"]
    assert found["units.conv2.weight"].equal(weights["module.conv2.weight"])
    report = json.loads((tmp_path / "run/uniform8/report.json").read_text())
    assert command("--resume", "hawq.pth.tar", "--resume-quantize", "-e")["top1"] == report["top1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--act-percentile", "99", "--act-quantizer", "lsq"), "--act-percentile 99 and --act-quantizer lsq exclude"),
        (("--weight-quantizer", "lqs"), "weight quantizer 'lqs' does not exist; there are"),
        (("--act-percentile", "30"), "act percentile 30.0: allowed are numbers in (50, 100]"),
        (("--no-channel-wise", "--weight-group", "2"), "--no-channel-wise and --weight-group 2 exclude each other"),
        (("--weight-group", "3"), "output channels do not part into weight groups of 3; allowed are 1, 2"),
        (("--weight-norm", "std"), "weight norm 'std' does not exist; there are none, mean, var, var-mean"),
        (("--bias-bit", "1"), "bias bits 1: allowed are 2..32"),
        (("--lr-schedule", "cosin"), "learning rate schedule 'cosin' is unknown; allowed are step:period=30"),
        (("--optimizer", "lion"), "optimizer 'lion' is unknown; allowed are sgd:momentum=0.9"),
        (("--group", "units.*"), "give PATTERN:lr=0.1,wd=0"),
        (("--group", "stem:lr=2"), "group stem:lr=2 holds no parameter; names are like units.stem.weight"),
        (("--mixup", "0"), "give a number above 0"),
        (("--epochs", "2", "--warmup", "3"), "a warm-up of 3 epochs in a training of 2"),
    ],
)
def test_wrong_usage_says_what_is_allowed(command, arguments, says):
    with pytest.raises(UsageError) as error:
        command(*arguments)
    assert says in str(error.value)
