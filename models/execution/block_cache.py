"""The first-block cache: where the first block hardly changes, nor do the others.

A step runs the first block; where what it adds differs from what it added at the last full step by
less than a threshold, the others' addition of that step is used again. The criterion is that of
ParaAttention (first_block_cache/utils.py), but row by row: company changes nothing. A loss, and
nothing for the few steps of a distilled model. One bit a row waits for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class BlockCache:
    """Of one row, for all of its steps.

    threshold    the change of the first block's addition, relative to it, below which the others
                 are skipped; 0 skips none
    first        [S, D] what the first block added at the last full step; None before the first one
    others       [S, D] what the other blocks added then
    num_skipped  steps
    """

    threshold: float
    first: Tensor | None = None
    others: Tensor | None = None
    num_skipped: int = 0

    def change(self, first: Tensor) -> Tensor:
        """Compare what the first block adds now: a scalar, inf before the first full step."""
        if self.first is None:
            return first.new_tensor(torch.inf, dtype=torch.float32)
        return (first - self.first).abs().mean(dtype=torch.float32) / self.first.abs().mean(
            dtype=torch.float32
        )


def run_others(
    caches: Sequence[BlockCache],
    before: Tensor,
    after: Tensor,
    run: Callable[[Tensor | None], Tensor],
) -> Tensor:
    """Run the blocks behind the first one for the rows that need it: the patches [B, S, D].

    before, after  [B, S, D] around the first block
    run            takes the rows to run, [R] int64, or None for all: the patches [R, S, D]
    """
    first = after - before
    changes = torch.stack([cache.change(own) for cache, own in zip(caches, first, strict=True)])
    thresholds = [cache.threshold for cache in caches]
    # not `>=`: where nothing was added before, the change is no number
    moved = [not c < limit for c, limit in zip(changes.tolist(), thresholds, strict=True)]
    rows = [row for row, has_moved in enumerate(moved) if has_moved]
    if len(rows) == len(caches):
        result = run(None)
    else:
        result = torch.stack([
            own if cache.others is None else own + cache.others
            for cache, own in zip(caches, after, strict=True)
        ])  # fmt: skip
        if rows:
            index = torch.tensor(rows, device=after.device)
            result[index] = run(index)
    _remember(caches, rows, first, result - after)
    return result


def _remember(
    caches: Sequence[BlockCache], rows: Sequence[int], first: Tensor, others: Tensor
) -> None:
    for row, cache in enumerate(caches):
        if row in rows:
            # not a view: it would keep the whole batch
            cache.first, cache.others = first[row].clone(), others[row].clone()
        else:
            cache.num_skipped += 1
