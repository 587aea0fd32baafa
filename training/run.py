"""One training run: steps, learning rate, running average, checkpoints, progress bar.

Knows nothing about what is trained. A run that was interrupted goes on where its last checkpoint
stands.
"""

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.muon import Muon

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 100
FALL_FROM = 0.4  # of the run: there the learning rate begins to fall
CHECKPOINT_EVERY = 250  # steps


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    num_steps: int
    learning_rate: float
    weight_decay: float
    work_dir: Path
    matrices: Sequence[nn.Parameter] = ()  # those that Muon trains; AdamW trains the others
    average_decay: float = 0.995

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / f"{self.name}.pt"


def train(run: Run, module: nn.Module, loss_at: Callable[[int], Tensor]) -> float:
    """Minimise `loss_at(step)` and leave the running average of the weights in the module.

    Returns the processor seconds that training took, interruptions left out.
    """
    run.work_dir.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(module)
    optimizers = _optimizers(run, module)
    first, spent_s = _resume(run, module, average, optimizers)
    started = time.process_time() - spent_s
    steps = range(first, run.num_steps)
    for step in (bar := tqdm(steps, run.name, run.num_steps, initial=first)):
        loss = loss_at(step)
        module.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _rate(run, step)
            optimizer.step()
        _mix_into(average, module, min(run.average_decay, (1 + step) / (10 + step)))
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == run.num_steps:
            spent_s = time.process_time() - started
            logger.info(
                "%s step=%d loss=%.4f spent_s=%.0f", run.name, step + 1, loss.item(), spent_s
            )
            _save(run, step + 1, spent_s, module, average, optimizers)
    module.load_state_dict(average.state_dict())
    return time.process_time() - started


def _optimizers(run: Run, module: nn.Module) -> list[torch.optim.Optimizer]:
    by_muon = {id(matrix) for matrix in run.matrices}
    others = [parameter for parameter in module.parameters() if id(parameter) not in by_muon]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            others, run.learning_rate, weight_decay=run.weight_decay, betas=(0.9, 0.98)
        )
    ]
    if run.matrices:
        optimizers.append(Muon(run.matrices, run.learning_rate, run.weight_decay))
    return optimizers


def _save(
    run: Run,
    step: int,
    spent_s: float,
    module: nn.Module,
    average: nn.Module,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    states = (module.state_dict(), average.state_dict(), [o.state_dict() for o in optimizers])
    save_whole((step, spent_s, *states), run.checkpoint)


def save_whole(states: Sequence[object], file: Path) -> None:
    """Save, so that an interrupted write leaves what was there before."""
    partial = file.with_suffix(".partial")
    torch.save(states, partial)
    os.replace(partial, file)


def _resume(
    run: Run,
    module: nn.Module,
    average: nn.Module,
    optimizers: list[torch.optim.Optimizer],
) -> tuple[int, float]:
    """Take up the checkpoint, where there is one; return the next step and the seconds spent."""
    if not run.checkpoint.is_file():
        return 0, 0.0
    step, spent_s, module_state, average_state, optimizer_states = torch.load(
        run.checkpoint, weights_only=True
    )
    module.load_state_dict(module_state)
    average.load_state_dict(average_state)
    for optimizer, state in zip(optimizers, optimizer_states, strict=True):
        optimizer.load_state_dict(state)
    logger.info("%s resumed_at=%d", run.name, step)
    return step, spent_s


def _rate(run: Run, step: int) -> float:
    share = step / run.num_steps
    fall = max(0.0, (share - FALL_FROM) / (1 - FALL_FROM))
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return run.learning_rate * warm * max(0.5 * (1 + math.cos(math.pi * fall)), 0.01)


@torch.no_grad()
def _mix_into(average: nn.Module, module: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
