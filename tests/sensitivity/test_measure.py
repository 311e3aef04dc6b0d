"""Sensitivities are measured once for a network, its data and the options."""

import json

import pytest
import torch
from small_graph import batches, build

from hawq.errors import HawqError, UsageError
from hawq.sensitivity import Probing, Sensitivity, measure, sensitivity_key

PROBING = Probing(max_probes=4)


def test_the_second_measurement_is_read_and_equals_the_first(tmp_path):
    cache = tmp_path / "sensitivity.json"
    first, cached = measure("hessian", build(), batches(4), PROBING, cache)
    assert not cached
    content = cache.read_bytes()
    again, cached = measure("hessian", build(), batches(4), PROBING, cache)
    assert cached
    assert again == first
    cache.unlink()
    measure("hessian", build(), batches(4), PROBING, cache)
    assert cache.read_bytes() == content


def test_the_file_says_what_it_holds(tmp_path):
    cache = tmp_path / "sensitivity.json"
    result, _ = measure("hessian", build(), batches(4, 2), PROBING, cache)
    document = json.loads(cache.read_text())
    assert document["format"] == "hawq-sensitivity"
    assert document["options"] == {"relative_error": 0.1, "max_probes": 4, "seed": 0, "images": 6}
    assert document["environment"]["torch"] == torch.__version__
    assert set(document["units"]["a"]) == {"weights", "trace", "trace_error", "omega"}
    assert list(document["units"]["a"]["omega"]) == ["2", "3", "4", "5", "6", "7", "8"]
    assert Sensitivity.load(cache) == result


def _changed(graph, name, index):
    tensor = graph.tensors[name].clone()
    tensor.view(-1)[index] += 1e-6
    return type(graph)(graph.nodes, graph.output, {**graph.tensors, name: tensor})


def test_whatever_changes_the_result_changes_the_key():
    graph, data = build(), batches(4)
    images, labels = data[0]
    keys = [
        sensitivity_key(*arguments)
        for arguments in [
            ("hessian", graph, data, PROBING),
            ("other", graph, data, PROBING),
            ("hessian", _changed(graph, "a.weight", 5), data, PROBING),
            ("hessian", _changed(graph, "n.var", 0), data, PROBING),
            ("hessian", type(graph)(graph.nodes, "flat", graph.tensors), data, PROBING),
            ("hessian", graph, [(images + 1e-6, labels)], PROBING),
            ("hessian", graph, [(images, (labels + 1) % 3)], PROBING),
            ("hessian", graph, [(images[:2], labels[:2]), (images[2:], labels[2:])], PROBING),
            ("hessian", graph, data, Probing(max_probes=5)),
            ("hessian", graph, data, Probing(max_probes=4, seed=1)),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert sensitivity_key("hessian", build(), batches(4), PROBING) == keys[0]


@pytest.mark.parametrize("content", ['{"format": "hawq-sens', '{"format": "hawq-sensitivity", "version": 1}', "{}"])
def test_a_broken_cache_is_measured_again(tmp_path, content):
    cache = tmp_path / "sensitivity.json"
    cache.write_text(content)
    with pytest.raises(HawqError):
        Sensitivity.load(cache)
    result, cached = measure("hessian", build(), batches(4), PROBING, cache)
    assert not cached
    assert Sensitivity.load(cache) == result


def test_an_unknown_method_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="sensitivity 'fisher' is unknown; known are hessian"):
        measure("fisher", build(), batches(4), PROBING, tmp_path / "s.json")
