"""A network that is quantized without training is a checkpoint like any other, and evaluates in the same integers."""

import pytest
import torch
from benches import bench
from networks import NETWORKS, images

from hawq.checkpoint import write_checkpoint
from hawq.errors import HawqError, UsageError
from hawq.graph.interpret import run_float
from hawq.ptq import METHODS, PRESETS, Stage, parse_methods
from hawq.ptq.checkpoint import check_replaceable, save_quantized
from hawq.qat.checkpoint import load_quantized
from hawq.quantizers.weight import weight_scale


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_keeps_the_network_and_remembers_moments(name):
    work, graph = bench(name)
    torch.testing.assert_close(
        run_float(work.graph, images(4))[graph.output], run_float(graph, images(4))[graph.output], rtol=1e-4, atol=1e-4
    )
    assert set(work.moments) == {unit for unit, node in graph.units.items() if node.op.norm is not None}
    for unit, moments in work.moments.items():
        assert torch.equal(moments.mean, graph.tensors[graph.units[unit].op.norm.bias])
        torch.testing.assert_close(
            moments.std, graph.tensors[graph.units[unit].op.norm.weight].abs(), rtol=1e-4, atol=0
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_gives_the_same_integers(name, tmp_path):
    work, graph = bench(name, "mixed")
    model = work.run(parse_methods("mse"))
    save_quantized(tmp_path / "best.pt", model, ["mse"])
    again = load_quantized(tmp_path / "best.pt", graph)
    assert again.graph.rewrites == ("folded",)
    assert torch.equal(again.evaluator()(images(4)), model.evaluator()(images(4)))


def test_weights_that_are_given_are_the_codes_of_the_program(tmp_path):
    work, graph = bench(scheme="mixed")
    model, unit = work.model, "conv2"
    before = model.evaluator()(images(4))
    limit = 2 ** (work.bits.units[unit].weight - 1) - 1
    codes = torch.randint(-limit, limit + 1, graph.weight_shape(unit)).float()
    scale = weight_scale(work.graph.tensors[f"{unit}/weight"], 4) * 1.3
    model.give_weights(unit, codes, scale)
    assert not torch.equal(model.evaluator()(images(4)), before)
    assert torch.equal(model.lower().tensors[f"{unit}.weight"].float(), codes)
    save_quantized(tmp_path / "best.pt", model, [])
    again = load_quantized(tmp_path / "best.pt", graph)
    assert again.bits.quantizers[unit].weight == "given"
    assert torch.equal(again.evaluator()(images(4)), model.evaluator()(images(4)))


def test_codes_beyond_the_bits_are_refused():
    work, graph = bench(scheme="uniform4")
    with pytest.raises(ValueError, match="beyond 4 bits"):
        work.model.give_weights("conv2", torch.full(graph.weight_shape("conv2"), 8.0), torch.ones(12))


def test_a_trained_checkpoint_is_no_place_for_another(tmp_path):
    path = tmp_path / "best.pt"
    check_replaceable(path)
    save_quantized(path, bench()[0].model, [])
    check_replaceable(path)
    path.write_bytes(b"torn")
    check_replaceable(path)
    write_checkpoint(path, {"count": 3})
    with pytest.raises(UsageError, match="trained"):
        check_replaceable(path)


def test_methods_are_checked():
    with pytest.raises(UsageError, match=r"does not exist; methods: .*minmax"):
        parse_methods("nonsense")
    with pytest.raises(UsageError, match="more than once"):
        parse_methods("mse,mse")
    for names in PRESETS.values():
        assert parse_methods(",".join(names))
    assert all(method.summary for method in METHODS.values())


def test_methods_are_put_in_order():
    named = [method.name for method in parse_methods("bias-correction,mse,absorb,equalize")]
    assert named == ["absorb", "equalize", "mse", "bias-correction"]


def test_a_method_that_needs_images_says_so(monkeypatch):
    work, _ = bench(images=None)
    monkeypatch.setitem(METHODS, "seeing", type(METHODS["mse"])("seeing", Stage.MODEL, lambda work: None, True, "See."))
    with pytest.raises(UsageError, match="method seeing needs images"):
        work.run(parse_methods("mse,seeing"))


def test_a_checkpoint_of_an_unknown_rewrite_is_refused(tmp_path):
    work, graph = bench()
    save_quantized(tmp_path / "best.pt", work.model, [])
    body = torch.load(tmp_path / "best.pt", weights_only=True)
    write_checkpoint(tmp_path / "other.pt", {**body, "rewrites": ["folded", "mangled"]})
    with pytest.raises(HawqError, match="unknown rewrite 'mangled'"):
        load_quantized(tmp_path / "other.pt", graph)
