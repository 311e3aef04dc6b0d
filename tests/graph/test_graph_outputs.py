"""A network may return several tensors: each is an output with a name, and nothing is fused or shared across one."""

import pytest
import torch
import torch.nn.functional as F
from networks import OUTPUTS, build, images
from torch import nn
from tracing import Run

from hawq.errors import HawqError
from hawq.graph.interpret import run_float
from hawq.graph.structure import find_domains, pinned_units
from hawq.graph.trace import trace

SHAPE = (4, 8, 8)


def conv(cin=4, cout=4):
    return nn.Conv2d(cin, cout, 3, padding=1)


FORMS = {
    "a tensor": (lambda m, x: m.a(x), {"logits": "a"}),
    "a tuple": (lambda m, x: (m.a(x), m.b(x)), {"0": "a", "1": "b"}),
    "a dictionary": (lambda m, x: {"near": m.a(x), "far": m.b(x)}, {"near": "a", "far": "b"}),
    "one of a kind": (lambda m, x: {"out": m.a(x)}, {"out": "a"}),
    "lists in a dictionary": (
        lambda m, x: {"box": [m.a(x), m.b(x)], "all": x},
        {"box.0": "a", "box.1": "b", "all": "input"},
    ),
    "one twice": (lambda m, x: [y := m.a(x), y], {"0": "a", "1": "a"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_named_by_their_places(form):
    call, outputs = FORMS[form]
    assert trace(Run(call, a=conv(), b=conv()), SHAPE).outputs == outputs


def test_values_are_those_of_the_model():
    model, batch = build("Detector"), images(2)
    graph = trace(model, tuple(batch.shape[1:]))
    assert tuple(graph.outputs) == OUTPUTS
    with torch.no_grad():
        expected, found = model(batch), run_float(graph, batch)
    for name, node in graph.outputs.items():
        first, *rest = name.split(".")
        torch.testing.assert_close(found[node], expected[first][int(rest[0])] if rest else expected[first])


def test_one_output_is_asked_for_by_itself():
    call, _ = FORMS["a tuple"]
    with pytest.raises(HawqError, match="needs a network with one output, and it has 2: 0, 1; wrap"):
        _ = trace(Run(call, a=conv(), b=conv()), SHAPE).output
    call, _ = FORMS["one of a kind"]
    assert trace(Run(call, a=conv(), b=conv()), SHAPE).output == "a"


def test_nothing_is_fused_or_joined_across_an_output():
    def call(m, x):
        y, z = m.a(x), F.relu(m.b(x))
        inner = torch.cat([y, z], 1)
        return {"raw": y, "part": z, "inner": inner, "clamped": F.relu(y), "all": torch.cat([inner, m.c(x)], 1)}

    graph = trace(Run(call, a=conv(), b=conv(), c=conv()), SHAPE)
    assert graph.nodes["a"].op.clamp is None
    assert graph.outputs == {"raw": "a", "part": "b", "inner": "cat", "clamped": "relu_2", "all": "cat_2"}
    domains = find_domains(graph)
    assert [domains[name].root for name in ("a", "b", "c", "cat")] == ["a", "b", "cat_2", "cat"]
    assert all(domains[name].stream for name in graph.outputs.values())


def test_outputs_are_accumulators_unless_something_reads_them():
    graph = trace(build("Detector"), (3, 16, 16))
    domains = find_domains(graph)
    accumulators = {name for name, node in graph.outputs.items() if domains[node].accumulator}
    assert accumulators == set(OUTPUTS) - {"map", "sum"}
    assert pinned_units(graph) == {"stem", "down", "boxes.0", "boxes.1", "classes.0", "classes.1", "tags"}
