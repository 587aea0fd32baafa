"""Tensors on disk, and giving every parameter of a module its own.

A `Recipe` says which stored tensors make one of ours; `fill` checks all of them before it reads
any, then reads, makes and places a few at a time, so that the peak is hardly more than the weights.
Files are read, not mapped: what runs does not change when somebody changes the file. Knows nothing
about what the weights mean.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.errors import PresetFileError, WeightsError

MAX_NAMES_IN_MESSAGE = 5
NUM_READERS = 4  # a file system gives several readers more than one, and memory is slow to clear
# Numbers: 64 KB of float32. Larger pieces come from mmap; glibc, seeing those freed, would then put
# the weights themselves on its heap, with a peak higher by 0.3 times their size.
CONVERTED_AT_ONCE = 2**14


class Weights(Protocol):
    """Tensors on disk by name; nothing is read until asked for. Closed by `with`."""

    @property
    def where(self) -> Path:
        """Say, for messages, which file or directory this is."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Give the shape of every stored tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Say in which dtype `read` gives a tensor."""

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        """Read one tensor to the CPU, into memory of its own, or into `out` and `out`'s dtype.

        `out` is contiguous and of the tensor's shape. Raises PresetFileError where the file ends
        too early.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of our tensors is made of stored ones.

    `make` gets the stored tensors in the order of `names`; None puts them one below the other,
    along the first axis, which takes no memory beside the result. It runs on the meta device first,
    which tells the shape it makes. There it should only turn or flatten: to add, join or flip,
    torch 2.13 imports its compiler first, 1.4 s. A recipe that `computes`, and does not only
    rearrange, gets the stored dtype; the others get what the result shall have.
    """

    names: tuple[str, ...]
    make: Callable[..., Tensor] | None = None
    computes: bool = False

    def join(self, *parts: Tensor) -> Tensor:
        """Make our tensor of the stored ones."""
        if self.make is not None:
            return self.make(*parts)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def shape(self, stored: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Tell the shape of what stored tensors of these shapes make.

        Raises IndexError, RuntimeError or ValueError for parts that do not go together.
        """
        if self.make is not None or len(self.names) == 1:
            parts = (torch.empty(stored[name], device="meta") for name in self.names)
            return tuple(self.join(*parts).shape)
        shapes = [stored[name] for name in self.names]  # torch's own cat is not so light there
        if any(shape[1:] != shapes[0][1:] or not shape for shape in shapes):
            raise ValueError(f"{shapes} do not go one below the other")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def identity_recipes(module: nn.Module) -> dict[str, Recipe]:
    """Expect every tensor under the module's own name."""
    return {name: Recipe((name,)) for name in module.state_dict()}


def ignore_none(_: str) -> bool:
    """Ignore no stored tensor: each must be asked for."""
    return False


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build modules without memory and without initial values, for `fill` to give them theirs.

    Initial values would cost nothing on the meta device, if torch 2.13 did not import its compiler
    to give none: 1.2 s and 70 MB.
    """
    with torch.device("meta"), _NoInitialValues():
        yield


class _NoInitialValues(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


def fill(
    module: nn.Module,
    weights: Weights,
    recipes: Mapping[str, Recipe],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
    is_ignored: Callable[[str], bool] = ignore_none,
) -> None:
    """Give every tensor of a module on the meta device its own from `weights`.

    `dtype` None keeps what the files hold. `is_ignored` names stored tensors of other modules.

    Raises WeightsError for tensors that are missing, left over or of a wrong shape, and
    PresetFileError for a file that cannot be read; then the module is unchanged.
    """
    wanted: Mapping[str, Tensor] = module.state_dict()
    assert wanted.keys() == recipes.keys(), "every tensor needs one recipe: this is a bug"
    _check_fit(wanted, weights, recipes, is_ignored)
    shapes = weights.shapes

    def make(recipe: Recipe) -> Tensor:
        made = _make(recipe, weights, shapes, dtype)
        placed = made.to(device, dtype if made.is_floating_point() else None)
        # A transposed view costs a matrix product nothing on the CPU, and a copy would cost
        # loading half of its speed; a GPU turns it round at once.
        return placed if placed.device.type == "cpu" else placed.contiguous()

    with ThreadPoolExecutor(NUM_READERS) as readers:
        state = dict(zip(recipes, readers.map(make, recipes.values()), strict=True))
    module.load_state_dict(state, assign=True)


def _make(
    recipe: Recipe,
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | None,
) -> Tensor:
    """Read what a recipe needs and make its tensor, on the CPU."""

    def empty(shape: Sequence[int]) -> Tensor:
        stored = weights.dtype(recipe.names[0])
        target = stored if dtype is None or not stored.is_floating_point else dtype
        return torch.empty(tuple(shape), dtype=target, device="cpu")

    if recipe.make is not None or len(recipe.names) == 1:
        outs = [None if recipe.computes else empty(shapes[name]) for name in recipe.names]
        return recipe.join(*map(weights.read, recipe.names, outs))
    whole = empty(recipe.shape(shapes))
    parts = whole.split([shapes[name][0] for name in recipe.names])
    for name, part in zip(recipe.names, parts, strict=True):
        weights.read(name, part)
    return whole


def _check_fit(
    wanted: Mapping[str, Tensor],
    weights: Weights,
    recipes: Mapping[str, Recipe],
    is_ignored: Callable[[str], bool],
) -> None:
    stored = weights.shapes
    used = {name for recipe in recipes.values() for name in recipe.names}
    wrong = [
        fault
        for name, recipe in recipes.items()
        if stored.keys() >= set(recipe.names)
        and (fault := _shape_fault(tuple(wanted[name].shape), recipe, stored)) is not None
    ]
    odd = [
        f"{name} is {weights.dtype(name)}"
        for whole, recipe in recipes.items()
        for name in recipe.names
        if wanted[whole].is_floating_point()
        and name in stored
        and not weights.dtype(name).is_floating_point
    ]
    left_over = [name for name in stored.keys() - used if not is_ignored(name)]
    faults = (
        ("missing", sorted(used - stored.keys())),
        ("left over", sorted(left_over)),
        ("of a wrong shape", sorted(wrong)),
        ("of no floating dtype", sorted(odd)),
    )
    said = "; ".join(f"{kind}: {some(names)}" for kind, names in faults if names)
    if said:
        raise WeightsError(f"{weights.where}: {said}")


def _shape_fault(
    wanted: tuple[int, ...], recipe: Recipe, stored: Mapping[str, tuple[int, ...]]
) -> str | None:
    got = " and ".join(str(list(stored[name])) for name in recipe.names)
    fault = f"{', '.join(recipe.names)} is {got}, for {list(wanted)}"
    try:
        return None if recipe.shape(stored) == wanted else fault
    except ValueError as error:
        return f"{fault} ({error})"
    except (IndexError, RuntimeError):  # torch's own words, of axes that are not there
        return fault


def some(names: Sequence[str]) -> str:
    """List a few names for a message, and how many more there are."""
    more = len(names) - MAX_NAMES_IN_MESSAGE
    shown = ", ".join(names[:MAX_NAMES_IN_MESSAGE])
    return f"{shown} and {more} more" if more > 0 else shown


def read_tensor(
    file: FileIO, offset: int, dtype: torch.dtype, shape: Sequence[int], out: Tensor | None = None
) -> Tensor:
    """Read a tensor that lies in one piece at `offset` bytes, as `Weights.read` does.

    Raises PresetFileError where the file ends too early or cannot be read.
    """
    read = torch.empty(tuple(shape), dtype=dtype, device="cpu") if out is None else out
    flat = read.view(-1)
    if read.dtype == dtype:
        _read_bytes(file, offset, flat)
        return read
    scratch = torch.empty(min(len(flat), CONVERTED_AT_ONCE), dtype=dtype, device="cpu")
    for start in range(0, len(flat), CONVERTED_AT_ONCE):
        part = flat[start : start + CONVERTED_AT_ONCE]
        converted = scratch[: len(part)]
        _read_bytes(file, offset + start * dtype.itemsize, converted)
        part.copy_(converted)
    return read


def _read_bytes(file: FileIO, offset: int, flat: Tensor) -> None:
    """Fill a flat tensor with the bytes from `offset` on; threads may share the file."""
    unread = flat.view(torch.uint8).numpy().data
    while unread:
        try:
            count = os.preadv(file.fileno(), [unread], offset)
        except OSError as error:
            raise PresetFileError(f"{file.name!s} cannot be read: {error}") from error
        if not count:
            raise PresetFileError(f"{file.name!s} is cut short: {len(unread)} bytes are missing")
        unread, offset = unread[count:], offset + count
