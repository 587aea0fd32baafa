"""A training run: what an interruption costs, and what it leaves in the module."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.run import CHECKPOINT_EVERY, Run, train

NUM_STEPS = CHECKPOINT_EVERY + 20


class Lesson:
    """A line to learn; it breaks off at a step, if asked to, and remembers the steps it gave."""

    def __init__(self, break_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(2, 1)
        self.steps: list[int] = []
        self._break_at = break_at

    def loss_at(self, step: int) -> Tensor:
        if step == self._break_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        inputs = torch.randn((16, 2), generator=torch.Generator().manual_seed(step))
        loss: Tensor = (self.module(inputs)[:, 0] - inputs.sum(dim=1)).square().mean()
        return loss


@pytest.fixture
def run_in(tmp_path: Path) -> Callable[[str], Run]:
    return lambda name: Run(name, NUM_STEPS, 0.02, 0.0, tmp_path)


def test_an_interrupted_run_goes_on_at_its_checkpoint(run_in: Callable[[str], Run]) -> None:
    broken, resumed = Lesson(break_at=CHECKPOINT_EVERY + 5), Lesson()
    with pytest.raises(KeyboardInterrupt):
        train(run_in("line"), broken.module, broken.loss_at)

    train(run_in("line"), resumed.module, resumed.loss_at)

    assert resumed.steps == list(range(CHECKPOINT_EVERY, NUM_STEPS))


def test_an_interruption_changes_nothing_in_the_result(run_in: Callable[[str], Run]) -> None:
    whole, broken, resumed = Lesson(), Lesson(break_at=CHECKPOINT_EVERY + 5), Lesson()
    train(run_in("whole"), whole.module, whole.loss_at)
    with pytest.raises(KeyboardInterrupt):
        train(run_in("broken"), broken.module, broken.loss_at)

    train(run_in("broken"), resumed.module, resumed.loss_at)

    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict())


def test_the_module_has_learned(run_in: Callable[[str], Run]) -> None:
    lesson = Lesson()

    train(run_in("line"), lesson.module, lesson.loss_at)

    torch.testing.assert_close(lesson.module.weight.data, torch.ones(1, 2), atol=0.05, rtol=0)
