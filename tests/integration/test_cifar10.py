"""ResNet-20 with its real CIFAR-10 weights keeps its accuracy in integers."""

import pytest
import torch
from pytorchcv.model_provider import get_model
from shared_data import cifar10, normalise, predictions, shared, top1

from hawq.bitconfig import BitConfig, UnitBits
from hawq.graph.trace import trace
from hawq.qat.model import QuantizedModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def resnet20():
    model = get_model("resnet20_cifar10")
    weights = shared("weights/cifar10_resnet20_pytorchcv.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@pytest.fixture(scope="module")
def images():
    train, test, labels = cifar10()
    return normalise(train[:1000], MEAN, STD), normalise(test, MEAN, STD), labels


def test_calibrated_uniform8_keeps_accuracy_and_predictions(resnet20, images):
    train, test, labels = images
    graph = trace(resnet20, (3, 32, 32))
    model = QuantizedModel(graph, BitConfig("resnet20_cifar10", "uniform8", dict.fromkeys(graph.units, UnitBits(8, 8))))
    model.calibrate(train.split(100))
    expected = predictions(resnet20, test)
    found = predictions(model.eval(), test)
    assert top1(expected, labels) == 91.0  # stated by the README of the weights for these 500 images
    assert abs(top1(found, labels) - 91.0) <= 0.6
    assert float((found.argmax(1) == expected.argmax(1)).float().mean()) >= 0.98
