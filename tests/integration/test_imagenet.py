"""ImageNet networks with their real weights: calibrated, exported and verified on real images."""

import sys
from pathlib import Path

import pytest
import torch
from shared_data import nips17, normalise, predictions, shared, top1, train1k

from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.qat.model import QuantizedModel
from hawq.schemes import uniform
from tvm_export import export, load, verify

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def efficientnet_lite0():
    timm = pytest.importorskip("timm", reason="needs the extra hawq[timm]")
    weights = torch.load(shared("weights/imagenet_efficientnet_lite0.pth"), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model.eval(), (127 / 255,) * 3, (128 / 255,) * 3


def mobilenet_v1():
    arch = f"{EXAMPLES / 'tensorflow_mobilenet.py'}:mobilenet_v1_075"
    weights = shared("weights/imagenet_mobilenet_v1_075.pth")
    return create_model(arch, weights=weights), (0.5,) * 3, (0.5,) * 3


@pytest.mark.slow
@pytest.mark.parametrize(("build", "float_top1"), [(efficientnet_lite0, 89.6), (mobilenet_v1, 72.0)])
def test_calibrated_uniform8_verifies_on_real_images(build, float_top1, tmp_path):
    model, mean, std = build()
    pixels, labels = nips17(500)
    images = normalise(pixels, mean, std)
    graph = trace(model, (3, 224, 224))
    quantized = QuantizedModel(graph, uniform("net", graph, 8))
    quantized.calibrate(normalise(train1k(256), mean, std).split(32))
    program = quantized.eval().lower()
    export(program, "llvm", tmp_path)
    compiled = load(tmp_path)
    report = verify(program, compiled, images[:200])
    assert report.exact
    assert report.integers == 200 * 1000
    assert top1(predictions(model, images), labels) == pytest.approx(float_top1, abs=0.21)  # one image is 0.2 points
    integer = top1(compiled.logits(images), labels)
    print(f"integer top-1 {integer:.1f}, float {float_top1}", file=sys.stderr)
    assert integer >= float_top1 - 3
