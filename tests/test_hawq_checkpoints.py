"""HAWQ's checkpoints: every weight and range arrives under our names, to the bit, or its absence is told."""

import re

import pytest
import torch
from torch import nn

from hawq.errors import HawqError, UsageError
from hawq.graph.trace import trace
from hawq.hawq_checkpoints import FileKind, Range, fill, read_hawq_checkpoint, set_ranges
from hawq.models import create_model
from hawq.qat.model import QuantizedModel
from hawq.schemes import uniform

SMALL, SIZE = "resnet20_cifar10", 32


def randomized(arch, seed=0):
    """Return a network whose batch norms betray a mix-up."""
    torch.manual_seed(seed)
    model = create_model(arch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return model


class HawqState(dict):
    """The state dict of one of HAWQ's quantized networks, filled module by module; every range is another one."""

    def convbn(self, name, conv, bn):
        buffers = {"convbn_scaling_factor": torch.zeros(conv.out_channels), "bias_integer": torch.zeros_like(bn.bias)}
        self._put(name, buffers | {"weight_integer": torch.zeros_like(conv.weight)})
        self._put(f"{name}.conv", conv.state_dict())
        self._put(f"{name}.bn", bn.state_dict())

    def act(self, name):
        place = len(self) + 1
        self._put(name, {"x_min": torch.tensor([-place / 64]), "x_max": torch.tensor([place / 32])})
        factors = ("act_scaling_factor", "pre_weight_scaling_factor", "identity_weight_scaling_factor")
        self._put(name, {factor: torch.ones(1) for factor in factors})

    def linear(self, name, module):
        self._put(name, module.state_dict())
        self._put(name, {"fc_scaling_factor": torch.zeros(len(module.weight))})
        self._put(name, {f"{field}_integer": torch.zeros_like(t) for field, t in module.state_dict().items()})

    def range(self, name):
        return Range(float(self[f"{name}.x_min"]), float(self[f"{name}.x_max"]))

    def _put(self, name, tensors):
        self.update({f"{name}.{field}": tensor for field, tensor in tensors.items()})


def hawq_resnet(model, stem):
    """Return what HAWQ's Q_ResNet saves for a pytorchcv ResNet; `stem` is its name of the first convolution."""
    state = HawqState()
    state.act("quant_input")
    first = next(module for module in model.features.init_block.modules() if hasattr(module, "bn"))
    state.convbn(stem, first.conv, first.bn)
    state.act("quant_act_int32")
    for stage_name, stage in model.features.named_children():
        if not stage_name.startswith("stage"):
            continue
        for unit_name, unit in stage.named_children():
            name = f"{stage_name}.{unit_name}"
            state.act(f"{name}.quant_act")
            for index, conv in enumerate(unit.body.children(), 1):
                state.convbn(f"{name}.quant_convbn{index}", conv.conv, conv.bn)
                if f"conv{index + 1}" in dict(unit.body.named_children()):
                    state.act(f"{name}.quant_act{index}")
            if unit.resize_identity:
                state.convbn(f"{name}.quant_identity_convbn", unit.identity_conv.conv, unit.identity_conv.bn)
            state.act(f"{name}.quant_act_int32")
    state.act("quant_act_output")
    state.linear("quant_output", model.output)
    return state


def save(state, path, **more):
    """Write a state dict as HAWQ does: from a DataParallel network, with the optimizer beside it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1, momentum=0.9).state_dict()
    best = torch.tensor([70.2])
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(
        {"epoch": 7, "arch": "resnet", "state_dict": state, "best_acc1": best, "optimizer": optimizer, **more}, path
    )
    return path


def graph_of(model, size=SIZE):
    return trace(model, (3, size, size))


@pytest.fixture(scope="module")
def small():
    return randomized(SMALL)


@pytest.mark.parametrize(
    ("arch", "size", "stem"),
    [
        (SMALL, 32, "quant_init_block_convbn"),
        ("resnet18", 64, "quant_init_block_convbn"),
        ("resnet50", 64, "quant_init_convbn"),
    ],
)
def test_the_float_network_is_the_sources_to_the_bit(tmp_path, arch, size, stem):
    source, target = randomized(arch), create_model(arch)
    if size != 32:
        source.features.final_pool = target.features.final_pool = nn.AdaptiveAvgPool2d(1)
    path = save(hawq_resnet(source, stem), tmp_path / "checkpoint.pth.tar")
    graph = graph_of(target, size)
    checkpoint = read_hawq_checkpoint(path, graph)
    assert (checkpoint.kind, checkpoint.epoch, checkpoint.path) == (FileKind.QUANTIZED, 7, path)
    assert checkpoint.unknown == checkpoint.missing == ()
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, before = source(image), target(image)
        fill(graph, checkpoint)
        assert not torch.equal(before, wanted)
        assert torch.equal(target(image), wanted)


def test_every_range_arrives_at_its_tensor(small, tmp_path):
    state = hawq_resnet(small, "quant_init_block_convbn")
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph_of(small))

    def behind_relu(name):
        return Range(0.0, state.range(name).high)

    stored = {
        "input": state.range("quant_input"),
        "features.init_block.conv": behind_relu("quant_act_int32"),
        "features.final_pool": behind_relu("quant_act_output"),
    }
    read = {"features.init_block.conv": behind_relu("stage1.unit1.quant_act")}
    blocks = [f"stage{stage}.unit{unit}" for stage in (1, 2, 3) for unit in (1, 2, 3)]
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        stored[f"features.{block}.body.conv1.conv"] = behind_relu(f"{block}.quant_act1")
        stored[f"features.{block}.add"] = behind_relu(f"{block}.quant_act_int32")
        if following is not None:
            read[f"features.{block}.add"] = behind_relu(f"{following}.quant_act")
    assert checkpoint.stored == stored
    assert checkpoint.read == read


def test_a_stem_that_no_addition_reads_has_the_range_of_its_readers(tmp_path):
    model = create_model("resnet50")
    state = hawq_resnet(model, "quant_init_convbn")
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph_of(model, 224))
    stem = "features.init_block.conv.conv"
    assert checkpoint.stored[stem] == Range(0.0, state.range("stage1.unit1.quant_act").high)
    assert stem not in checkpoint.read
    assert (
        checkpoint.stored["features.stage2.unit3.body.conv2.conv"].high == state.range("stage2.unit3.quant_act2").high
    )
    assert len(checkpoint.stored) == 1 + 1 + 2 * 16 + 16 + 1  # image, stem, inside of blocks, sums, pooled
    assert len(checkpoint.read) == 15


def test_mobilenet_and_its_classifier(tmp_path):
    model = randomized("mobilenetv2_wd4")
    state = HawqState()
    features = model.features
    state.act("quant_input")
    state.convbn("init_block", features.init_block.conv, features.init_block.bn)
    state.act("quant_act_int32")
    for stage_name, stage in features.named_children():
        if stage_name.startswith("stage"):
            for unit_name, unit in stage.named_children():
                name = f"features.{stage_name}.{unit_name}"
                state.act(f"{name}.quant_act")
                for index in (1, 2, 3):
                    conv = getattr(unit, f"conv{index}")
                    state.convbn(f"{name}.conv{index}", conv.conv, conv.bn)
                    if index < 3:
                        state.act(f"{name}.quant_act{index}")
                state.act(f"{name}.quant_act_int32")
    state.act("quant_act_before_final_block")
    state.convbn("features.final_block", features.final_block.conv, features.final_block.bn)
    state.act("quant_act_int32_final")
    state.act("quant_act_output")
    state["output.weight"] = torch.rand_like(model.output.weight)
    state["output.conv.weight"] = model.output.weight.detach()  # where it began: HAWQ trains the copy
    graph = graph_of(model, 224)
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph)
    assert checkpoint.unknown == checkpoint.missing == ()
    assert torch.equal(checkpoint.tensors["output.weight"], state["output.weight"])
    for root, name in (
        ("features.stage2.unit1.conv3.conv", "features.stage2.unit1.quant_act_int32"),  # no skip ends here
        ("features.stage2.unit2.add", "features.stage2.unit2.quant_act_int32"),
    ):
        assert checkpoint.stored[root] == state.range(name)  # signed: no ReLU behind it
    assert checkpoint.stored["features.final_block.conv"].high == state.range("quant_act_int32_final").high
    assert checkpoint.stored["features.final_pool"].high == state.range("quant_act_output").high


def test_ranges_lie_over_the_calibrated_ones(small, tmp_path):
    state = hawq_resnet(small, "quant_init_block_convbn")
    graph = graph_of(small)
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph)
    model = QuantizedModel(graph, uniform(SMALL, graph, 4))
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    model.calibrate([image])
    before = model.eval()(image)
    kept = set_ranges(model, checkpoint)
    sums = {name for name, domain in model.plan.domains.items() if domain.stream and domain.signed}
    assert set(kept) == sums  # what enters an addition is an accumulator in HAWQ
    types = model.lower().types
    assert types["features.stage1.unit1.add"].scale == pytest.approx(
        state.range("stage1.unit1.quant_act_int32").high / 65535
    )
    assert types["features.stage1.unit1.add.read"].scale == pytest.approx(
        state.range("stage1.unit2.quant_act").high / 15
    )
    assert types["input"].scale == pytest.approx(state.range("quant_input").high / 127)
    assert not torch.equal(model(image), before)


def test_what_was_never_observed_keeps_its_calibration(small, tmp_path):
    state = hawq_resnet(small, "quant_init_block_convbn")
    for end in ("x_min", "x_max"):
        state[f"stage1.unit1.quant_act1.{end}"] = torch.zeros(1)
    state["quant_act_output.x_max"] = torch.tensor(float("nan"))
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph_of(small))
    assert not checkpoint.stored.keys() & {"features.stage1.unit1.body.conv1.conv", "features.final_pool"}


def test_unknown_and_missing_entries_are_told_by_name(small, tmp_path):
    state = hawq_resnet(small, "quant_init_block_convbn")
    del state["stage1.unit1.quant_convbn1.conv.weight"], state["quant_output.bias"]
    state |= {
        "stage9.unit1.quant_convbn1.conv.weight": torch.zeros(1),
        "stage9.unit1.quant_act_int32.x_max": torch.zeros(1),
        "stage9.unit1.quant_act.x_max": torch.zeros(1),
        "stage1.unit1.quant_convbn1.conv.bias": torch.zeros(1),
        "stage1.unit1.alpha": torch.zeros(1),
    }
    graph = graph_of(create_model(SMALL))
    checkpoint = read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph)
    assert sorted(checkpoint.unknown) == [
        "stage1.unit1.alpha",
        "stage1.unit1.quant_convbn1.conv.bias",
        "stage9.unit1.quant_act.x_max",
        "stage9.unit1.quant_act_int32.x_max",
        "stage9.unit1.quant_convbn1.conv.weight",
    ]
    assert set(checkpoint.missing) == {"features.stage1.unit1.body.conv1.conv.weight", "output.bias"}
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    with pytest.raises(
        HawqError, match=r"2 missing \(features\.stage1\.unit1\.body\.conv1\.conv\.weight, output\.bias\)"
    ):
        fill(graph, checkpoint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors.items())


def test_weights_of_another_shape_are_refused(small, tmp_path):
    state = hawq_resnet(small, "quant_init_block_convbn")
    state["quant_output.weight"] = torch.zeros(100, 64)
    graph = graph_of(small)
    with pytest.raises(HawqError, match=re.escape("1 misshapen (output.weight (100, 64) instead of (10, 64))")):
        fill(graph, read_hawq_checkpoint(save(state, tmp_path / "c.pth.tar"), graph))


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_float_network_in_hawqs_wrapping(small, tmp_path, wrapped):
    state = dict(small.state_dict())
    path = tmp_path / "c.pth.tar"
    if wrapped:
        save(state | {"features.extra.weight": torch.zeros(1)}, path)
    else:
        torch.save(state, path)
    graph = graph_of(create_model(SMALL))
    checkpoint = read_hawq_checkpoint(path, graph)
    assert (checkpoint.kind, checkpoint.epoch) == (FileKind.FLOAT, 7 if wrapped else 0)
    assert checkpoint.unknown == (("features.extra.weight",) if wrapped else ())
    assert (checkpoint.missing, checkpoint.stored, checkpoint.read) == ((), {}, {})
    fill(graph, checkpoint)
    assert all(torch.equal(tensor, state[name]) for name, tensor in graph.tensors.items())


def test_files_that_cannot_be_trained_on(small, tmp_path):
    graph = graph_of(small)
    path = tmp_path / "quantized_checkpoint.pth.tar"
    slices = ("convbn_scaling_factor", "fc_scaling_factor", "weight_integer", "bias_integer", "act_scaling_factor")
    torch.save({name: {f"module.quant_output.{name}": torch.zeros(1)} for name in slices}, path)
    with pytest.raises(HawqError, match=r"only the integers.*give the checkpoint\.pth\.tar or model_best\.pth\.tar"):
        read_hawq_checkpoint(path, graph)
    with pytest.raises(UsageError, match="absent does not exist"):
        read_hawq_checkpoint(tmp_path / "absent", graph)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HawqError, match="may be torn"):
        read_hawq_checkpoint(path, graph)
