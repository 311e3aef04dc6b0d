"""What people see of a training where there is no terminal."""

import pytest

from hawq.cli import training_progress as shown
from hawq.train.state import StepReport


@pytest.fixture
def printed(monkeypatch):
    """Let time pass by ten seconds whenever it is asked for; return the lines."""
    lines, clock = [], iter(range(0, 10_000, 10))
    monkeypatch.setattr(shown.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(shown.console, "print", lambda text, **_: lines.append(text))
    return lines


def test_a_long_epoch_tells_once_a_minute_how_much_is_left(printed):
    """Every step takes 10 s; the sixth of this process prints the first line, with 94 steps to come."""
    with shown.training_progress("training uniform4") as heard:
        for step in range(101, 112):
            heard.step(StepReport(epoch=1, step=step, steps=200, epochs=2, loss=0.5, lr=0.01))
        assert printed == ["training uniform4: epoch 2/2, step 106/200, loss 0.500, lr 0.01, 0:15:40 left"]
        heard.epoch({"epoch": 2.0, "loss": 0.25, "top1": 90.0, "images_per_second": 12.0})
    assert printed[1:] == ["training uniform4: epoch 2, loss 0.2500, top-1 90.00%, 12 images/s"]


def test_print_freq_asks_for_a_line_after_every_so_many_steps(printed):
    with shown.training_progress("training uniform4", every=3) as heard:
        for step in range(1, 8):
            heard.step(StepReport(epoch=0, step=step, steps=10, epochs=1, loss=0.5, lr=0.01))
    assert [line.split(", ")[1] for line in printed] == ["step 3/10", "step 6/10"]
