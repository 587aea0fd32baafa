"""The first-block cache: off at 0, and otherwise skips what hardly changes, row by row."""

import torch
from torch import Tensor

from models.execution.block_cache import BlockCache, run_others

SHAPE = (1, 6, 4)


def blocks(rows: Tensor | None) -> Tensor:
    """What comes behind the first block: ones, however it is called."""
    num_rows = 2 if rows is None else len(rows)
    return torch.ones(num_rows, *SHAPE[1:])


def step(caches: list[BlockCache], *added: float) -> Tensor:
    """A step at which the first block adds numbers to rows of zeros."""
    before = torch.zeros(len(added), *SHAPE[1:])
    after = before + torch.tensor(added)[:, None, None]
    return run_others(caches, before, after, blocks)


def test_a_threshold_of_0_skips_nothing() -> None:
    caches = [BlockCache(0.0), BlockCache(0.0)]
    assert all(torch.equal(step(caches, 2.0, 3.0), torch.ones(2, 6, 4)) for _ in range(3))
    assert [cache.num_skipped for cache in caches] == [0, 0]


def test_a_row_that_hardly_changes_gets_what_was_added_before_and_its_neighbour_is_run() -> None:
    caches = [BlockCache(0.1), BlockCache(0.1)]
    step(caches, 2.0, 2.0)  # the others add -1
    skipped, ran = step(caches, 2.1, 3.0)
    torch.testing.assert_close(skipped, torch.full(SHAPE[1:], 1.1))
    assert torch.equal(ran, torch.ones(SHAPE[1:]))
    assert [cache.num_skipped for cache in caches] == [1, 0]


def test_small_changes_add_up_until_the_blocks_run_again() -> None:
    caches = [BlockCache(0.1), BlockCache(0.1)]
    for added in (2.0, 2.1, 2.15, 2.25, 2.3):
        step(caches, added, added)
    assert [cache.num_skipped for cache in caches] == [3, 3]  # 2.25 is 12 % from 2.0


def test_where_the_first_block_added_nothing_all_blocks_run() -> None:
    caches = [BlockCache(0.1), BlockCache(0.0)]
    assert all(torch.equal(step(caches, 0.0, 0.0), torch.ones(2, 6, 4)) for _ in range(2))
    assert [cache.num_skipped for cache in caches] == [0, 0]
