"""Calls by levers that fall back to torch's own execution where they fail.

What is compiled or captured for some shapes may still fail for others, long after it was tried.
"""

import logging
from collections.abc import Sequence

import torch
from torch import nn

from models.execution.compiled_blocks import undo_compiling
from models.execution.float8_products import layers_for, turn_off

logger = logging.getLogger(__name__)


def report_on(lever: str, found: str = "") -> None:
    logger.info("event=lever_on lever=%s%s", lever, found and f" {found}")


def report_off(lever: str, reason: Exception | str) -> None:
    said = reason if isinstance(reason, str) else _said(reason)
    logger.warning("event=lever_off lever=%s reason=%r", lever, said)


class FallbackCall:
    """Runs a backbone's method; where it fails, without levers, from then on.

    Stands in the method's place. Too little memory turns nothing off: fewer rows may fit.
    """

    def __init__(self, backbone: nn.Module, method: str, blocks: Sequence[nn.Module]) -> None:
        self._backbone = backbone
        self._method = method
        self._blocks = blocks
        self._call = getattr(backbone, method)

    def __call__(self, *args: object, **kwargs: object) -> object:
        try:
            return self._call(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # the second: what compiled code checks
            report_off("all", error)
        self._turn_levers_off()
        return self._call(*args, **kwargs)

    def _turn_levers_off(self) -> None:
        undo_compiling(self._blocks)
        turn_off(layers_for(self._blocks))
        vars(self._backbone).pop(self._method, None)  # the class's own again
        self._call = getattr(self._backbone, self._method)


def _said(error: Exception) -> str:
    """Without the compiler's pages: what it raised is on the second line."""
    lines = f"{type(error).__name__}: {error}".splitlines()
    return " ".join(lines[:2])[:300]
