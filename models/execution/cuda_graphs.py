"""Calls that are captured as CUDA graphs, one for each set of shapes, and replayed.

A replay costs one launch where the call costs a thousand. It reads and writes fixed memory, so
inputs are copied in and outputs are copied out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from models.execution.fallback import report_off
from models.layers.adapters import Adaptable

Replay: TypeAlias = Callable[[], object]
MAX_GRAPHS = 8


@dataclass(frozen=True, slots=True)
class Captured:
    """What a graph gives, in memory that each replay writes anew."""

    output: object
    replay: Replay


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: list[Tensor]
    captured: Captured


def capture(run: Callable[[], object]) -> Captured:
    """Capture a call on CUDA that has run before."""
    graph = torch.cuda.CUDAGraph()
    # other threads may go on with what a capture must not do
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = run()
    return Captured(output, graph.replay)


class GraphedCall:
    """Runs a module's call as it is for shapes that are new, and from a graph from then on.

    Of the shapes that were used last, `MAX_GRAPHS` have one. With weights that were moved all are
    captured anew; with adapters, whose scales a graph would not see, none is used.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[..., object],
        capture: Callable[[Callable[[], object]], Captured] = capture,
    ) -> None:
        self._call = call
        self._capture = capture
        self._weights = [*module.parameters(), *module.buffers()]
        self._adaptable = [each for each in module.modules() if isinstance(each, Adaptable)]
        self._pointers: tuple[int, ...] = ()
        self._graphs: dict[object, _Graph] = {}  # the one that was used last at the end
        self._seen: set[object] = set()
        self._is_refused = False

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self._is_refused or any(layer.is_adapted for layer in self._adaptable):
            return self._call(*args, **kwargs)
        self._forget_moved()
        given, structure = pytree.tree_flatten((args, kwargs))
        key = (structure, tuple(map(_shape, given)))
        graph = self._graphs.pop(key, None)
        if graph is None and key in self._seen:
            graph = self._captured(given, structure)
        self._seen.add(key)
        if graph is None:
            return self._call(*args, **kwargs)
        self._graphs[key] = graph  # the last one used
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.pop(next(iter(self._graphs)))
        torch._foreach_copy_(graph.inputs, _tensors(given))
        graph.captured.replay()
        return pytree.tree_map_only(Tensor, torch.clone, graph.captured.output)

    def _captured(self, given: list[object], structure: pytree.TreeSpec) -> _Graph | None:
        try:
            with torch.inference_mode(False):  # made inside it could not be written to outside
                held = [torch.empty_like(x) if isinstance(x, Tensor) else x for x in given]
            torch._foreach_copy_(_tensors(held), _tensors(given))
            args, kwargs = pytree.tree_unflatten(held, structure)
            return _Graph(_tensors(held), self._capture(lambda: self._call(*args, **kwargs)))
        except Exception as error:  # a kernel that waits, or no memory for it
            report_off("cuda_graphs", error)
            self._is_refused = True
            self._graphs.clear()
            return None

    def _forget_moved(self) -> None:
        pointers = tuple(weight.data_ptr() for weight in self._weights)
        if pointers != self._pointers:
            self._pointers = pointers
            self._graphs.clear()


def _tensors(given: Sequence[object]) -> list[Tensor]:
    return [each for each in given if isinstance(each, Tensor)]


def _shape(given: object) -> object:
    return (given.shape, given.stride(), given.dtype) if isinstance(given, Tensor) else given
