"""KerasHub's LoRA on our backbones: enabling, saving and loading it.

A file names a layer by its position among KerasHub's layers with weights, which the backbone lists
(`keras_layers`), so its adapters land where KerasHub's would. Where KerasHub is silent (targets or
entries that match no layer), this raises. Knows nothing about the Flux LoRA files of other
programs. Source: keras_hub/src/models/backbone.py (keras-hub 0.32.0) and keras/src/layers (3.15.1).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.checkpoints.weights import some
from models.errors import WeightsError
from models.keras import lora_file
from models.keras.layers import Form, KerasLayer, KerasModel
from models.keras.lora_file import LoraFile, Pair
from models.layers.adapters import Adaptable, Adapter, Embedding, adaptable_layers, adapters_of

SUFFIX = ".lora.h5"
MAX_RANK = 2**16  # wider than any layer
DEFAULT_TARGETS = ("query_dense", "value_dense", "query", "value")


@dataclass(frozen=True, slots=True)
class Target:
    """A layer of ours that KerasHub can give an adapter too."""

    keras: KerasLayer
    layer: Adaptable

    def is_named(self, name: str) -> bool:
        """Say whether `name` is KerasHub's, or our module's or the end of it."""
        return name == self.keras.name or f".{self.keras.module}".endswith(f".{name}")

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that `enable` gave: it alone has no name."""
        return next((each for each in adapters_of(self.layer) if each.name is None), None)

    def fresh(self, rank: int) -> Pair:
        """Make an adapter that adds nothing: A is He-uniform, B zero."""
        kernel = self._kernel_shape
        bound = math.sqrt(6 / math.prod(kernel[:-1]))
        a, b = (
            torch.zeros(shape, device=self.layer.weight.device, dtype=torch.float32)
            for shape in ((*kernel[:-1], rank), (rank, kernel[-1]))
        )
        return Pair(self._kind, a.uniform_(-bound, bound), b)

    def take(self, pair: Pair) -> None:
        """Take an adapter in Keras' layout, into the one that is there or as a new one."""
        a, rows = self._form.to_ours(pair.a), pair.b.T
        rows = rows if self.keras.fold is None else self.keras.fold.to_ours(rows)
        if (adapter := self.adapter) is not None:
            with torch.no_grad():
                adapter.a.copy_(a)
                adapter.b.copy_(rows)
            return
        device = self.layer.weight.device
        self.layer.add_adapter(Adapter(a.contiguous().to(device), rows.contiguous().to(device)))
        if isinstance(bias := getattr(self.layer, "bias", None), nn.Parameter):
            bias.requires_grad_(True)

    def pair(self) -> Pair:
        """Give the adapter in Keras' layout."""
        assert self.adapter is not None, "only an enabled layer has a pair: this is a bug"
        rows = self.adapter.b.detach()
        rows = rows if self.keras.fold is None else self.keras.fold.to_keras(rows)
        return Pair(self._kind, self._form.to_keras(self.adapter.a.detach()), rows.T)

    def fault(self, pair: Pair, rank: int) -> str | None:
        """Say what is wrong with an adapter for this layer."""
        kernel = self._kernel_shape
        wanted = (self._kind, [*kernel[:-1], rank], [rank, kernel[-1]])
        got = (pair.kind, list(pair.a.shape), list(pair.b.shape))
        told = "{}: A is {}, B is {}"
        return None if got == wanted else f"{told.format(*got)}, not {told.format(*wanted)}"

    @property
    def _kernel_shape(self) -> torch.Size:
        """In Keras' layout."""
        return self._form.to_keras(torch.empty(self.layer.weight_shape, device="meta")).shape

    @property
    def _form(self) -> Form:
        return self.keras.variables[0].form

    @property
    def _kind(self) -> str:
        is_embedding = isinstance(self.layer, Embedding)
        return lora_file.EMBEDDINGS if is_embedding else lora_file.KERNEL


def enable(backbone: KerasModel, rank: int, target_names: Sequence[str] | None = None) -> None:
    """Freeze everything and give the targets adapters that add nothing yet.

    The adapters, float32, and the targets' biases are trainable. `target_names` are KerasHub's
    layer names as in a process that has built nothing else (`query`, `dense_9`), or our module
    names or ends of them (`qkv`, `double_blocks.0.img_attn.qkv`); None is `DEFAULT_TARGETS`.

    Raises ValueError for a rank out of range, for names that come twice or match no layer that can
    hold an adapter, and where LoRA is enabled already; TypeError for a plain string.
    """
    targets = _targets(backbone)
    if _enabled(targets):
        raise ValueError("lora is already enabled. This can only be done once per layer.")
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise TypeError(f"rank is {rank!r}; an integer is allowed")
    if not 1 <= rank <= MAX_RANK:
        raise ValueError(f"rank is {rank}; 1 to {MAX_RANK} are allowed")
    named = _named(targets, DEFAULT_TARGETS if target_names is None else target_names)
    pairs = [target.fresh(rank) for target in named]
    backbone.requires_grad_(False)
    for target, pair in zip(named, pairs, strict=True):
        target.take(pair)


def save(backbone: KerasModel, path: str | Path) -> None:
    """Write the adapters that `enable` gave, and nothing else, as KerasHub does.

    Raises ValueError where LoRA is not enabled, and for a file name without `.lora.h5`.
    """
    enabled = _enabled(_targets(backbone))
    if not enabled:
        raise ValueError(
            "There are no lora-enabled layers in this model. "
            "Make sure to call `.enable_lora(rank)` first."
        )
    if not str(path).endswith(SUFFIX):
        raise ValueError(f"The filename must end in `{SUFFIX}`. Received: filepath={path}")
    pairs = {position: target.pair() for position, target in enabled.items()}
    lora_file.write(Path(path), LoraFile(_rank(enabled), pairs))


def load(backbone: KerasModel, path: str | Path) -> None:
    """Give the adapters the values of a file; where LoRA is not enabled, enable what it names.

    Raises PresetFileError for a missing or malformed file, ValueError where it has another rank
    than the adapters, WeightsError where its layers are not those that are enabled, or cannot hold
    its adapters. Then the backbone is unchanged.
    """
    stored = lora_file.read(Path(path))
    targets = _targets(backbone)
    enabled = _enabled(targets)
    if enabled and stored.rank != _rank(enabled):
        raise ValueError(
            f"The Lora rank expected by file '{path}' is rank={stored.rank}, but the model was "
            f"called with `.enable_lora(rank={_rank(enabled)})`. Both ranks must match."
        )
    _check_fit(
        stored, enabled or targets, str(path), missing=sorted(enabled.keys() - stored.pairs.keys())
    )
    if not enabled:
        backbone.requires_grad_(False)
    for position, pair in stored.pairs.items():
        targets[position].take(pair)


def _targets(backbone: KerasModel) -> dict[int, Target]:
    """Give every layer that can hold an adapter by its position."""
    modules = adaptable_layers(backbone)
    return {
        each.position: Target(each, modules[each.module])
        for each in backbone.keras_layers()
        if each.module in modules
    }


def _enabled(targets: Mapping[int, Target]) -> dict[int, Target]:
    return {position: each for position, each in targets.items() if each.adapter is not None}


def _rank(enabled: Mapping[int, Target]) -> int:
    adapters = (target.adapter for target in enabled.values())
    return next(adapter.rank for adapter in adapters if adapter is not None)


def _named(targets: Mapping[int, Target], names: Sequence[str]) -> list[Target]:
    """Find the targets of all names, the default ones of which need not all be there."""
    if isinstance(names, str):
        raise TypeError(f"target_names is the string {names!r}; a list of names is allowed")
    if odd := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"target_names has {odd[0]!r}; strings are allowed")
    if not names:
        raise ValueError("target_names is empty")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"target_names has {', '.join(twice)} more than once")
    found = {name: [each for each in targets.values() if each.is_named(name)] for name in names}
    lost = [name for name, layers in found.items() if not layers]
    if len(lost) == len(found) or not set(lost) <= set(DEFAULT_TARGETS):
        allowed = ", ".join(dict.fromkeys(target.keras.name for target in targets.values()))
        modules = ", ".join(
            dict.fromkeys(re.sub(r"\.\d+\.", ".N.", f"{t.keras.module}") for t in targets.values())
        )
        raise ValueError(
            f"no layer that can hold an adapter is named {', '.join(lost)}; "
            f"allowed are KerasHub's names {allowed}, and ours or the ends of them, {modules}"
        )
    return [each for each in targets.values() if any(each in layers for layers in found.values())]


def _check_fit(
    stored: LoraFile, targets: Mapping[int, Target], file: str, missing: Sequence[int]
) -> None:
    left_over = sorted(stored.pairs.keys() - targets.keys())
    wrong = [
        f"layer {position} ({targets[position].keras.module}) has {fault}"
        for position, pair in stored.pairs.items()
        if position in targets and (fault := targets[position].fault(pair, stored.rank))
    ]
    faults = (
        ("missing layers", [str(position) for position in missing]),
        ("layers that take no adapter", [str(position) for position in left_over]),
        ("adapters of a wrong form", wrong),
    )
    said = "; ".join(f"{kind}: {some(found)}" for kind, found in faults if found)
    if said or not stored.pairs:
        raise WeightsError(f"{file}: {said or 'holds no adapters'}")
