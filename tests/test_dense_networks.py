"""torchvision's segmentation networks and detectors give dense maps; what follows them is torchvision's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from hawq.dense_networks import DenseSsd, detector_names, segmenter_names
from hawq.errors import UsageError
from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.models import create_model, input_spec
from hawq.outputs import plain
from hawq.qat.model import QuantizedModel
from hawq.schemes import uniform
from hawq.task import Task
from tvm_export import export, load, verify

SIZE = 64
NAMES = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large")


def images(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def settled(name: str) -> nn.Module:
    """Return a network with random weights whose batch norms have seen images, so that signals pass through it."""
    torch.manual_seed(0)
    model = create_model(f"torchvision:{name}")
    with torch.no_grad():
        for seed in range(3):
            model.train()(images(4, seed=seed))
    return model.eval()


def quantized(name: str) -> tuple[FloatGraph, QuantizedModel]:
    graph = trace(settled(name), (3, SIZE, SIZE))
    model = QuantizedModel(graph, uniform(name, graph, 8)).eval()
    model.calibrate([images(8, seed=9)])
    return graph, model


def test_segmentation_networks_return_the_logits_of_every_pixel():
    model, batch = settled(NAMES[0]), images(2)
    inner = copy.deepcopy(model)
    inner._forward_hooks.clear()
    with torch.no_grad():
        assert model(batch).equal(inner(batch)["out"])
    assert model(batch).shape == (2, 21, SIZE, SIZE)
    assert create_model(f"torchvision:{NAMES[0]}", num_classes=5)(batch).shape[1] == 5


def test_decoded_maps_are_what_the_detector_finds():
    torch.manual_seed(0)
    whole = models.get_model(NAMES[2], weights_backbone=None, num_classes=6).eval()
    model = create_model(f"torchvision:{NAMES[2]}", num_classes=6)
    model.load_state_dict(whole.state_dict())
    pixels = torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole(list(pixels))
        outputs = model((pixels - 0.5) / 0.5)
        found = model.decode(outputs)
    assert list(outputs) == [f"{head}.{level}" for head in ("cls_logits", "bbox_regression") for level in range(6)]
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes) > 100
        torch.testing.assert_close(one.boxes, other["boxes"])
        torch.testing.assert_close(one.scores, other["scores"])
        assert one.labels.equal(other["labels"])


def test_boxes_are_in_pixels_of_the_images_seen_last():
    model = DenseSsd(NAMES[2], weights=None, num_classes=3).eval()
    with torch.no_grad():
        large, small = (model.decode(model(images(1, size)))[0].boxes.max() for size in (320, 160))
    assert (float(large), float(small)) == (320.0, 160.0)  # boxes are cut at the edges


def test_what_the_library_knows_of_them():
    mean, std, half = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.5, 0.5, 0.5)
    spec = input_spec("torchvision:deeplabv3_mobilenet_v3_large")
    assert (spec.size, spec.mean, spec.std, spec.task) == (520, mean, std, Task.SEGMENTATION)
    spec = input_spec("torchvision:ssdlite320_mobilenet_v3_large")
    assert (spec.size, spec.mean, spec.std, spec.task) == (320, half, half, Task.DETECTION)
    assert set(NAMES) <= {*segmenter_names(), *detector_names()}


def test_two_stage_detectors_are_unknown():
    with pytest.raises(UsageError, match="torchvision has no network 'fasterrcnn_resnet50_fpn'"):
        create_model("torchvision:fasterrcnn_resnet50_fpn")


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_gives_the_maps(name):
    model, batch = settled(name), images(2, seed=7)
    graph = trace(model, (3, SIZE, SIZE))
    with torch.no_grad():
        values, expected = run_float(graph, batch), model(batch)
    found = plain({output: values[node] for output, node in graph.outputs.items()})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # spatial means are summed in another order


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_stay_close_and_every_integer_is_equal(name, tmp_path):
    graph, model = quantized(name)
    batch = images(4, seed=7)
    with torch.no_grad():
        values, found, simulated = run_float(graph, batch), model(batch), model._simulate(batch)
    found, simulated = ({"logits": each} if isinstance(each, Tensor) else each for each in (found, simulated))
    for output, node in graph.outputs.items():
        signal = values[node].var()
        assert float((found[output] - values[node]).square().mean() / signal) < 0.05, output
        assert float((found[output] - simulated[output]).square().mean() / signal) < 0.01, output
    program = model.lower()
    export(program, "llvm", tmp_path, batch=2)
    assert verify(program, load(tmp_path), batch[:3], until="all").exact
