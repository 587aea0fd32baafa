"""Giving every parameter of a module its own from the tensors on disk.

`fill` checks all of them before it reads any, then reads, makes and places a few at a time, so that
the peak is hardly more than the weights, on the host and on the device. Knows nothing about what
the weights mean.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.checkpoints.weights import Float8Weights, Recipe, Weights, ignore_none, some
from models.errors import WeightsError
from models.layers.adapters import Linear
from models.layers.float8_storage import Float8Matrix

NUM_READERS = 4  # a file system gives several readers more than one, and memory is slow to clear


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


@dataclass(frozen=True, slots=True)
class Target:
    """Where a module's tensors go, and in what form; names are the module's own.

    dtype          None keeps what the files hold
    host_names     what stays in the host's memory, whatever the device
    float8_names   weights of `Linear` layers that are kept in float8
    """

    device: str | torch.device = "cpu"
    dtype: torch.dtype | None = torch.float32
    host_names: Collection[str] = frozenset()
    float8_names: Collection[str] = frozenset()


def fill(
    module: nn.Module,
    weights: Weights,
    recipes: Mapping[str, Recipe],
    target: Target = Target(),
    is_ignored: Callable[[str], bool] = ignore_none,
) -> None:
    """Give every tensor of a module on the meta device its own from `weights`.

    On the meta device nothing is read: each tensor gets the dtype that it would have. `is_ignored`
    names stored tensors of other modules.

    Raises WeightsError for tensors that are missing, left over or of a wrong shape, and
    PresetFileError for a file that cannot be read; then the module is unchanged.
    """
    wanted: Mapping[str, Tensor] = module.state_dict()
    assert wanted.keys() == recipes.keys(), "every tensor needs one recipe: this is a bug"
    _check_fit(wanted, weights, recipes, is_ignored)
    maker = _Maker(weights, target)
    with ThreadPoolExecutor(NUM_READERS) as readers:
        tensors = readers.map(maker.make, recipes.keys(), recipes.values())
        made = dict(zip(recipes, tensors, strict=True))
    matrices = {name: each for name, each in made.items() if isinstance(each, Float8Matrix)}
    state = {n: each.values if isinstance(each, Float8Matrix) else each for n, each in made.items()}
    module.load_state_dict(state, assign=True)
    for name, matrix in matrices.items():
        layer = module.get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, Linear), f"{name} is not of a Linear: this is a bug"
        layer.keep_in_float8(matrix)


class _Maker:
    """Reads, makes and places tensors; several threads may ask it."""

    def __init__(self, weights: Weights, target: Target) -> None:
        self._weights = weights
        self._shapes = weights.shapes
        self._target = target
        self._rounding = Lock()

    def make(self, name: str, recipe: Recipe) -> Tensor | Float8Matrix:
        target = self._target
        home = "cpu" if name in target.host_names else target.device
        if name in target.float8_names:
            return self._make_float8(recipe, home)
        if torch.device(target.device).type == "meta":
            dtype = self._dtype(recipe, target.dtype)
            return torch.empty(recipe.shape(self._shapes), dtype=dtype, device="meta")
        made = self._read(recipe, target.dtype)
        placed = made.to(home, target.dtype if made.is_floating_point() else None)
        # A transposed view costs a matrix product nothing on the CPU, and a copy would cost
        # loading half of its speed; a GPU turns it round at once.
        return placed if placed.device.type == "cpu" else placed.contiguous()

    def _make_float8(self, recipe: Recipe, home: str | torch.device) -> Float8Matrix:
        device = torch.device(self._target.device)
        if device.type == "meta":
            matrix = torch.empty(recipe.shape(self._shapes), device="meta")
            return Float8Matrix.of(matrix)
        stored = self._read_float8(recipe)
        if stored is not None:
            return stored.to(home)
        made = self._read(recipe, None)
        with self._rounding:  # on the device, which rounds faster; one at a time has room there
            return Float8Matrix.of(made.to(device)).to(home)

    def _read_float8(self, recipe: Recipe) -> Float8Matrix | None:
        """Take float8 as it is stored, which loses nothing; None where something is not."""
        if recipe.make is not None or not isinstance(self._weights, Float8Weights):
            return None
        parts = [self._weights.read_float8(name) for name in recipe.names]
        stored = [part for part in parts if part is not None]
        is_of_one_dtype = len({part.values.dtype for part in stored}) == 1
        is_whole = len(stored) == len(parts) and is_of_one_dtype
        return Float8Matrix.joined(stored) if is_whole else None

    def _read(self, recipe: Recipe, dtype: torch.dtype | None) -> Tensor:
        """Read what a recipe needs and make its tensor, on the CPU."""
        weights, shapes = self._weights, self._shapes

        def empty(shape: Sequence[int]) -> Tensor:
            return torch.empty(tuple(shape), dtype=self._dtype(recipe, dtype), device="cpu")

        if recipe.make is not None or len(recipe.names) == 1:
            outs = [None if recipe.computes else empty(shapes[name]) for name in recipe.names]
            return recipe.join(*map(weights.read, recipe.names, outs))
        whole = empty(recipe.shape(shapes))
        parts = whole.split([shapes[name][0] for name in recipe.names])
        for name, part in zip(recipe.names, parts, strict=True):
            weights.read(name, part)
        return whole

    def _dtype(self, recipe: Recipe, dtype: torch.dtype | None) -> torch.dtype:
        stored = self._weights.dtype(recipe.names[0])
        return stored if dtype is None or not stored.is_floating_point else dtype


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
