"""A dump of feature maps holds every integer, and what it stands for."""

import pytest
import torch
from networks import NETWORKS, images
from schemes import calibrated

from hawq.files import read_tensors
from hawq.train.features import write_features


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_written_with_its_integers(tmp_path, name):
    model = calibrated(name, "mixed")
    program = model.lower()
    path = write_features(model, images(3), tmp_path / "run", 12)
    assert path == tmp_path / "run" / "features-12.safetensors"
    found = read_tensors(path)
    trace = model.evaluator().trace(images(3))
    assert len(found) == 3 * len(program.ops)
    for op in program.ops:
        codes = found[op.name]
        assert codes.dtype == (torch.int32 if op.out.bits > 8 else torch.int8 if op.out.signed else torch.uint8)
        assert torch.equal(codes.int(), trace[op.name])
        assert found[f"{op.name}.zero_point"].item() == op.out.zero_point


def _real(found, name):
    return found[f"{name}.scale"] * (found[name].int() - found[f"{name}.zero_point"])


def test_the_values_are_those_of_the_float_network_within_a_step(tmp_path):
    model = calibrated("Residual", asymmetric=True)
    found = read_tensors(write_features(model, images(3), tmp_path, 0))
    assert torch.equal(_real(found, model.graph.output), model(images(3)))
    scale = found["input.scale"].item()
    inside = images(3).clamp(*(_real({**found, "input": torch.tensor(end)}, "input").item() for end in (0, 255)))
    assert (_real(found, "input") - inside).abs().max() <= scale / 2 * 1.001  # half a step, and the division's rounding


def test_the_model_goes_on_training_as_before(tmp_path):
    model = calibrated("Residual").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_features(model, images(3), tmp_path, 5)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
