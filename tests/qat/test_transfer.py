"""A scheme begins where another one ended: weights, norms and ranges are carried, and what is not is told."""

import pytest
import torch
from networks import NETWORKS, SIZE, build, images
from schemes import SCHEMES, calibrated
from torch import nn

from hawq.bitconfig import BitConfig, UnitBits
from hawq.checkpoint import write_checkpoint
from hawq.graph.trace import trace
from hawq.integer.ops import STREAM_BITS
from hawq.qat.checkpoint import describe, load_quantized
from hawq.qat.transfer import carry_ranges, start_from
from hawq.qat.unit import FoldedNorm
from hawq.quantizers import QuantOptions, UniformActivation
from hawq.quantizers.minmax import MinMaxWeight
from hawq.quantizers.registry import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from hawq.schemes import uniform


class StepWeight(MinMaxWeight):
    """Learn the number that a test looks for; begin it from the weights."""

    def __init__(self, bits, weight, options):
        super().__init__(bits, weight, options)
        self.step = nn.Parameter(weight.abs().mean() / bits)


class StepActivation(UniformActivation):
    """Learn a step, which means nothing at another width."""

    def __init__(self, bits, grid, options):
        super().__init__(bits, grid, options)
        self.learned = nn.Parameter(torch.ones(()))

    def calibrate(self, value):
        self.learned.fill_(value.abs().max() / self.grid.codes(self.bits)[1])

    def scale_and_zero_point(self):
        return self.learned, 0


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.setitem(WEIGHT_QUANTIZERS, "step", StepWeight)
    monkeypatch.setitem(ACTIVATION_QUANTIZERS, "step", StepActivation)
    return {"weight_quantizer": "step", "act_quantizer": "step"}


def trained(name, scheme="uniform8", **options):
    """Return a model in which every number has moved."""
    model = calibrated(name, scheme, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith((".low", ".high")))]:
            tensor.mul_(torch.rand(tensor.shape, generator=generator) * 0.2 + 1)
        for module in model.modules():
            if isinstance(module, FoldedNorm):
                module.mean.add_(0.1)
    return model


def through_a_file(model, name, path):
    """Return the model that a later process finds."""
    write_checkpoint(path, describe(model))
    return load_quantized(path, trace(build(name), (3, SIZE, SIZE)))


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_norms_and_ranges_arrive_in_another_scheme(tmp_path, name):
    source = trained(name)
    old = through_a_file(source, name, tmp_path / "checkpoint.pt")
    model, left = start_from(old, SCHEMES["mixed"](old.graph))
    model.calibrate([images(4, 9)])
    assert left == carry_ranges(old, model) == ()
    wanted, found = source.state_dict(), model.state_dict()
    counters = {key for key in found if key.endswith("seen")} | {"batches"}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found.keys() - counters)
    assert model.bits.units != old.bits.units
    types, old_types = model.lower().types, source.lower().types
    streams = [name for name, kind in types.items() if kind.bits == STREAM_BITS]
    assert all(types[name] == old_types[name] for name in streams)


def test_the_same_scheme_is_the_same_program(tmp_path):
    source = trained("Residual", "mixed")
    model, left = start_from(through_a_file(source, "Residual", tmp_path / "c.pt"), source.bits)
    model.calibrate([images(4, 9)])
    assert left == carry_ranges(source, model) == ()
    assert torch.equal(model.eval()(images(3)), source(images(3)))
    assert int(model.batches) == 0


def test_the_float_network_and_the_old_model_stay_as_they_were(tmp_path):
    old = trained("Residual")
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    tensors = {name: tensor.clone() for name, tensor in old.graph.tensors.items()}
    model, _ = start_from(old, SCHEMES["uniform4"](old.graph))
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in old.state_dict().items())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.graph.tensors.items())


def test_what_was_learned_for_a_width_stays_with_the_width(learning):
    old = trained("Residual", "uniform4", **learning)
    units = dict(old.bits.units)
    units["conv3"] = UnitBits(3, 3)
    model, left = start_from(old, BitConfig("net", "next", units), QuantOptions(**learning))
    model.calibrate([images(4, 9)])
    assert left == ("conv3",)
    assert torch.equal(model.unit("conv3").quantizer.step, old.unit("conv3").weight.abs().mean() / 3)
    assert torch.equal(model.unit("conv2").quantizer.step, old.unit("conv2").quantizer.step)
    source = model.graph.nodes["conv3"].inputs[0]
    assert carry_ranges(old, model) == (f"{source}.read",)
    inner = model.graph.nodes["conv2"].inputs[0]
    assert torch.equal(model.input_quantizer(inner).learned, old.input_quantizer(inner).learned)


def test_another_method_begins_anew(learning):
    old = trained("Residual", "uniform4")
    model, left = start_from(old, uniform("net", old.graph, 4), QuantOptions(**learning))
    model.calibrate([images(4, 9)])
    assert left == ()  # nothing learned was left: minmax keeps no numbers
    changed = {name for name, spec in model.plan.stored.items() if spec.quantizer == "step"}
    changed |= {f"{name}.read" for name, spec in model.plan.read.items() if spec.quantizer == "step"}
    assert changed
    assert set(carry_ranges(old, model)) == changed
    assert torch.equal(model.unit("conv1").quantizer.step, old.unit("conv1").weight.abs().mean() / 4)
