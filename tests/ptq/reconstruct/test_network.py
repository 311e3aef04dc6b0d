"""A reconstructed network is a checkpoint like any other; it can be interrupted and bounded in memory."""

import pytest
import torch
from benches import bench
from networks import NETWORKS, images

from hawq.graph.interpret import run_float
from hawq.ptq import Settings, parse_methods
from hawq.ptq.checkpoint import save_quantized
from hawq.ptq.reconstruct import network
from hawq.ptq.reconstruct.storage import Storage
from hawq.qat.checkpoint import load_quantized
from hawq.quantizers.weight import per_channel

METHODS = ("adaround", "brecq")


def reconstructed(method, folder=None, name="Residual", scheme="uniform4", iterations=10, memory=1.0, **others):
    settings = Settings(iterations=iterations, memory=memory)
    work, graph = bench(name, scheme, settings=settings, folder=folder, **others)
    return work.run(parse_methods(f"mse,{method}")), graph


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_its_codes_are_those_of_the_program_and_of_the_checkpoint(method, name, tmp_path):
    model, graph = reconstructed(method, name=name, scheme="mixed")
    save_quantized(tmp_path / "best.pt", model, [method])
    again = load_quantized(tmp_path / "best.pt", graph)
    assert again.evaluator()(images(8)).equal(model.evaluator()(images(8)))
    nearest = bench(name, "mixed")[0].run(parse_methods("mse"))
    program, plain = model.lower(), nearest.lower()
    for unit, bits in model.bits.units.items():
        weight = model.graph.tensors[f"{unit}/weight"]
        codes, before = program.tensors[f"{unit}.weight"].float(), plain.tensors[f"{unit}.weight"].float()
        ratio = weight / per_channel(nearest.unit(unit).quantizer.scale(nearest.unit(unit).weight), weight)
        limit = 2 ** (bits.weight - 1) - 1
        assert codes.abs().max() <= limit
        assert ((codes - ratio.clamp(-limit, limit)).abs() < 1 + 1e-4).all()  # a scale read back from a division
        assert ((codes - before).abs() <= 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_network_comes_nearer_to_the_float_one(method):
    nearest = bench("Inverted")[0].run(parse_methods("mse"))
    model, graph = reconstructed(method, name="Inverted", iterations=80)
    logits = run_float(graph, images(64, seed=9))[graph.output].detach()
    errors = [float((net.evaluator().logits(images(64, seed=9)) - logits).square().mean()) for net in (nearest, model)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(method, tmp_path, monkeypatch):
    whole, _ = reconstructed(method, tmp_path / "whole")

    def interrupt(what, done, total, status):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstructed(method, tmp_path / "broken", progress=interrupt)
    kept = len([*(tmp_path / "broken").rglob("*.safetensors")])
    learned = []
    learn = network.learn
    monkeypatch.setattr(network, "learn", lambda *args: (learned.append(args[1].output), learn(*args)))
    resumed, _ = reconstructed(method, tmp_path / "broken")
    blocks = len([*(tmp_path / "whole").rglob("*.safetensors")])
    assert 0 < kept < blocks
    assert len(learned) == blocks - kept
    assert equal(state(whole), state(resumed))
    files = [sorted((tmp_path / run).rglob("*.safetensors")) for run in ("whole", "broken")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_a_torn_file_is_learned_again(tmp_path):
    whole, _ = reconstructed("brecq", tmp_path)
    torn = sorted(tmp_path.rglob("*.safetensors"))[1]
    content = torn.read_bytes()
    torn.write_bytes(content[: len(content) // 2])
    again, _ = reconstructed("brecq", tmp_path)
    assert equal(state(whole), state(again))
    assert torn.read_bytes() == content


@pytest.mark.parametrize("other", [{"iterations": 11}, {"scheme": "mixed"}, {"images": lambda: [images(16, seed=3)]}])
def test_files_of_other_settings_are_not_taken(other, tmp_path):
    reconstructed("adaround", tmp_path)
    reconstructed("adaround", tmp_path, **other)
    assert len([*tmp_path.iterdir()]) == 2


def test_memory_is_bounded_and_changes_nothing(tmp_path, monkeypatch):
    held = []

    class Watched(Storage):
        def lend(self, shape):
            tensor = super().lend(shape)
            held.append((self.held, self.limit, tensor.is_shared()))
            return tensor

    monkeypatch.setattr(network, "Storage", Watched)
    free, _ = reconstructed("brecq")
    most = max(bytes_ for bytes_, _, _ in held)
    assert not any(shared for _, _, shared in held)
    held.clear()
    bound, _ = reconstructed("brecq", tmp_path, memory=most / 2 / (1 << 30))
    assert all(bytes_ <= limit for bytes_, limit, _ in held)
    assert any(shared for _, _, shared in held)
    assert equal(state(free), state(bound))
    assert not list(tmp_path.glob(".activations*"))


def test_everything_is_given_back(monkeypatch):
    kept = []
    monkeypatch.setattr(network, "Storage", lambda *args: kept.append(Storage(*args)) or kept[-1])
    reconstructed("brecq")
    assert kept[0].held == 0


def test_units_with_fewer_codes_keep_them():
    work, graph = bench(settings=Settings(iterations=10))
    codes = torch.randint(-3, 4, graph.weight_shape("conv2")).float()
    work.model.give_weights("conv2", codes, torch.full((12,), 0.1))
    model = work.run(parse_methods("adaround"))
    assert model.lower().tensors["conv2.weight"].abs().max() <= 3
