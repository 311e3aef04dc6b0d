"""Rules for ranges, by name: each is what its name says, alone or of weights and activations apart."""

import pytest
from networks import SIZE, build, images
from schemes import SCHEMES

from hawq.graph.trace import trace
from hawq.integer import ReferenceExecutor
from hawq.ptq import METHODS, Stage, Workbench, parse_methods
from hawq.quantizers import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS

BOTH = ("minmax", "mse", "laplace", "gauss", "std", "mix")


def bench():
    graph = trace(build("Inverted"), (3, SIZE, SIZE))
    return Workbench.of(graph, SCHEMES["uniform4"](graph), images=lambda: [images(8)])


def ran(methods):
    return bench().run(parse_methods(methods))


def chosen(methods):
    """Return the quantizers of weights and activations that methods choose."""
    work = bench()
    for method in parse_methods(methods):
        work.apply(method)
    return work.options.weight_quantizer, work.options.act_quantizer


@pytest.mark.parametrize("rule", BOTH)
def test_a_rule_serves_weights_activations_or_both(rule):
    others = {"mse": "gauss"}.get(rule, "mse")
    for method, weights, acts in (
        (rule, rule, rule), (f"{rule}-weights", rule, others), (f"{rule}-acts", others, rule)
    ):  # fmt: skip
        assert chosen(f"{others},{method}") == (weights, acts)


@pytest.mark.parametrize("rule", ["kl", "running", "percentile"])
def test_rules_of_activations_leave_weights_alone(rule):
    assert chosen(f"mse,{rule}") == ("mse", rule)


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.stage is Stage.RULES])
def test_every_rule_becomes_integers(method):
    model = ran(method)
    assert type(model.unit("deep").quantizer) is WEIGHT_QUANTIZERS[model.options.weight_quantizer]
    assert type(model.input_quantizer("stem")) is ACTIVATION_QUANTIZERS[model.options.act_quantizer]
    assert model(images(4)).equal(ReferenceExecutor(model.lower()).logits(images(4)))


def test_pinned_units_keep_the_whole_range():
    model = ran("laplace")
    assert type(model.unit("stem").quantizer) is WEIGHT_QUANTIZERS["minmax"]
    assert type(model.input_quantizer("input")) is ACTIVATION_QUANTIZERS["minmax"]
