"""The default search on networks with real weights beats chance and its reverse, and is the same from every seed."""

import sys
from pathlib import Path

import pytest
from shared_data import shared

from hawq.sensitivity import Sampling, measure
from search import find_scheme
from search.confidence import UntilStable

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # last: it has a `networks` of its own

from metrics import Comparison, load_images, reversed_ranking


@pytest.fixture(scope="module")
def comparison():
    data = shared("weights/cifar10_resnet20_pytorchcv.pth").parents[1]
    shared("cifar10/cifar10_lossless.npz")
    return Comparison("resnet20_cifar10", data, load_images(data), ("bops0.5",))


def _measured(comparison, tmp_path, seed):
    (question,), batches = comparison.questions, comparison.images["search"].batches(32, seed)
    return measure(
        comparison.graph, Sampling("jacobian", seed=seed), batches, tmp_path / f"{seed}.json", UntilStable(question)
    )


@pytest.mark.slow
def test_the_default_metric_beats_random_schemes_and_its_reverse(comparison, tmp_path):
    (question,), found = comparison.questions, _measured(comparison, tmp_path, 0)
    chosen = comparison.row(question, "chosen", found.omega)
    backwards = comparison.row(question, "reversed", reversed_ranking(question, found.omega))
    random = comparison.random(question, 8)
    for other in (backwards, random):
        assert chosen["held out loss"] < 0.7 * other["held out loss"]
        assert chosen["held out top-1"] > other["held out top-1"]
        assert chosen["test top-1"] > other["test top-1"]


@pytest.mark.slow
def test_two_seeds_find_the_same_scheme(comparison, tmp_path):
    (question,) = comparison.questions
    schemes = [find_scheme(question, _measured(comparison, tmp_path, seed).omega).config for seed in (0, 1)]
    assert schemes[0] == schemes[1]
