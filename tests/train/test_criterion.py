"""The losses against their formulas, and what a teacher does to a training."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import SIZE, build
from test_training import quantized, silent, tiny_data

from hawq.checkpoint import read_checkpoint
from hawq.errors import UsageError
from hawq.graph.trace import trace
from hawq.train.criterion import CrossEntropy, Distillation
from hawq.train.quantized import train_quantized


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits, taught = (torch.randn(4, 7, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return torch.zeros(4, 1), logits.requires_grad_(), taught, torch.tensor([0, 6, 3, 3])


def test_distillation_is_the_formula_with_the_mean_over_images_alone(case):
    images, logits, taught, labels = case
    p, q = (taught / 6).softmax(1), (logits / 6).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = 0.95 * 36 * divergence + 0.05 * F.cross_entropy(logits, labels)
    assert torch.allclose(Distillation(lambda _: taught)(images, logits, labels), expected, rtol=1e-12)


def test_the_gradient_of_the_teachers_part_is_t_times_the_difference_of_the_softmaxes(case):
    """d/dz of T^2 KL is T (q - p) / N (1503.02531)."""
    images, logits, taught, labels = case
    loss = Distillation(lambda _: taught, alpha=1.0, temperature=4.0)(images, logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(gradient, 4 * ((logits / 4).softmax(1) - (taught / 4).softmax(1)) / 4, atol=1e-12)


def test_without_a_share_for_the_teacher_it_is_the_cross_entropy(case):
    images, logits, taught, labels = case
    hard = CrossEntropy(smoothing=0.1)
    assert Distillation(lambda _: taught, hard, alpha=0.0)(images, logits, labels) == hard(images, logits, labels)
    spread = torch.full((4, 7), 0.1 / 7, dtype=torch.float64)
    spread[torch.arange(4), labels] += 0.9
    assert torch.allclose(hard(images, logits, labels), -(spread * logits.log_softmax(1)).sum(1).mean(), rtol=1e-12)


def test_no_gradient_flows_into_the_teacher(case):
    images, logits, taught, labels = case
    taught.requires_grad_()
    Distillation(lambda _: taught * 1.0)(images, logits, labels).backward()
    assert taught.grad is None


def test_wrong_numbers_and_teachers_are_refused(case):
    images, logits, taught, labels = case
    with pytest.raises(UsageError, match=r"alpha lies in 0\.\.1"):
        Distillation(lambda _: taught, alpha=1.5)
    with pytest.raises(UsageError, match="the temperature above 0"):
        Distillation(lambda _: taught, temperature=0.0)
    with pytest.raises(UsageError, match="the teacher has 5 classes and the network 7"):
        Distillation(lambda _: taught[:, :5])(images, logits, labels)


def test_a_student_comes_closer_to_its_teacher(tmp_path):
    """Distil the float network into its 2-bit version: the integers' logits end nearer to the float ones."""
    torch.manual_seed(0)
    model = build("Residual").eval()
    graph, data = trace(model, (3, SIZE, SIZE)), tiny_data(96)
    images = torch.cat([batch for batch, _ in data.batches("test", 48)])

    def distance(**changes):
        run = replace(quantized(graph, tmp_path, epochs=changes.pop("epochs", 6), lr=0.01), **changes)
        student, _ = train_quantized(run, graph, data, silent)
        with torch.no_grad():
            return float((student(images) - model(images)).square().mean())

    before = distance(epochs=0)
    after = distance(criterion=Distillation(model, alpha=1.0, temperature=2.0))
    assert after < 0.7 * before
    assert read_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 6
