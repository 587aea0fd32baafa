"""Which models an installation serves: one list that all of its workers are given.

An entry is the name of a built-in preset, NAME=HANDLE, a hub's handle, a directory or a file; in a
TOML file, or as JSON, a table that says more. Free of torch; loads nothing.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_settings import NoDecode

from models.errors import PresetError
from models.execution.execution import Execution
from models.flux.placement import Placement
from models.presets import BUNDLED_NAMES, PRESETS, PresetTask
from models.presets.format_detection import detect_task
from models.presets.handles import HANDLE, Part, fetch
from worker.contract.jobs import Task

PRESET_TASKS = {
    PresetTask.TEXT_TO_IMAGE: Task.IMAGES,
    PresetTask.IMAGE_CLASSIFICATION: Task.CLASSIFY,
    PresetTask.EMBEDDING: Task.EMBEDDINGS,
}
_SIZE = r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")
_MAX_NAME = 100


def _public(name: str) -> str:
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"the name {name!r:.120} is not allowed; letters, digits and . _ - are, in parts "
            "separated by /, each with a letter or digit first"
        )
    return name


PublicName = Annotated[str, AfterValidator(_public)]  # by which clients know a model or a LoRA


class FixedPlacement(BaseModel):
    """Where the parts of a text-to-image model lie: `models.flux.placement`, field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    float8: bool = False
    num_streamed_blocks: Annotated[int, Field(ge=0)] = 0
    streams_text_encoder: bool = False
    tile_from: Annotated[int, Field(ge=1)] | None = None

    @property
    def placement(self) -> Placement:
        return Placement(**self.model_dump())


class FixedExecution(BaseModel):
    """The levers that a model is run with: `models.execution.execution`, field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compiles: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    float8_products: bool = False
    block_cache: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _ = self.execution
        return self

    @property
    def execution(self) -> Execution:
        return Execution(**self.model_dump())


class ModelSpec(BaseModel):
    """One model to serve; what is left out is as the checkpoint says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PublicName  # what clients call it
    handle: str | None = None  # None: the built-in preset of that name
    task: Task | None = None  # None: told by the checkpoint's configuration
    aliases: tuple[PublicName, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None  # int8: on the CPU
    device: Annotated[str, Field(pattern=r"^(cpu|cuda:\d+)$")] | None = None  # None: the worker's
    pinned: bool = False  # never leaves the device for another model
    execution: FixedExecution | None = None  # None: what loses nothing on the device
    # of text-to-image models
    default_size: Annotated[str, Field(pattern=_SIZE)] | None = None  # WIDTHxHEIGHT
    max_side: Annotated[int, Field(ge=16, le=8192)] | None = None
    num_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    placement: FixedPlacement | None = None  # None: as `device_plan` chooses
    # by which a request chooses some: files, directories or hubs' handles (`handles.fetch_lora`)
    loras: Mapping[PublicName, Annotated[str, StringConstraints(min_length=1)]] = {}

    @model_validator(mode="after")
    def _hides_nothing(self) -> Self:
        if self.handle is None and self.name not in _servable():
            raise ValueError(f"{self.name!r} is not one of {', '.join(_servable())}")
        hidden = [name for name in self._names_given() if name in PRESETS]
        if hidden:
            raise ValueError(f"{hidden[0]!r} is the name of a built-in preset; choose another")
        return self

    def _names_given(self) -> tuple[str, ...]:
        return self.aliases if self.handle is None else (self.name, *self.aliases)

    @property
    def source(self) -> str:
        """What `models` loads."""
        return self.name if self.handle is None else self.handle


def _servable() -> list[str]:
    return [preset.name for preset in PRESETS.values() if preset.task is not None]


def _parse(value: object) -> object:
    if isinstance(value, str):
        value = _of_json(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list | tuple):
        return value
    entries = [entry.strip() if isinstance(entry, str) else entry for entry in value]
    once = [e for i, e in enumerate(entries) if not (isinstance(e, str) and e in entries[:i])]
    return tuple(_of_text(entry) if isinstance(entry, str) else entry for entry in once if entry)


def _of_json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def _of_text(entry: str) -> Mapping[str, str]:
    name, equals, handle = entry.partition("=")
    if equals and handle and not HANDLE.match(name):
        return {"name": name, "handle": handle}
    if entry in _servable():
        return {"name": entry}
    if HANDLE.fullmatch(entry):
        parts = entry.partition("@")[0].split("/")
        last = next((part for part in reversed(parts) if part and not part.isdecimal()), entry)
        return {"name": last, "handle": entry}
    path = Path(entry)
    if path.is_dir():
        return {"name": path.resolve().name, "handle": entry}
    if path.is_file():
        return {"name": path.stem, "handle": entry}
    raise ValueError(
        f"{entry!r} is not one of {', '.join(_servable())}, nor a directory, a file, a hub's "
        "handle or NAME=HANDLE"
    )


def _distinct(specs: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
    if not specs:
        raise ValueError("at least one model is needed")
    seen: set[str] = set()
    for name in (name for spec in specs for name in (spec.name, *spec.aliases)):
        if name in seen:
            raise ValueError(f"{name!r} names two models")
        seen.add(name)
    return specs


def with_aliases(specs: tuple[ModelSpec, ...], aliases: Mapping[str, str]) -> tuple[ModelSpec, ...]:
    """Give models further names; raises ValueError for one that is taken, or names no model."""
    names = [spec.name for spec in specs]
    for alias, name in aliases.items():
        if name not in names:
            raise ValueError(f"model_aliases: {name!r} is not one of {', '.join(names)}")
        if alias in PRESETS:
            raise ValueError(f"model_aliases: {alias!r} is already the name of a preset")
    return _distinct(tuple(
        spec.model_copy(update={"aliases": tuple(dict.fromkeys(
            [*spec.aliases, *(alias for alias, name in aliases.items() if name == spec.name)]
        ))})
        for spec in specs
    ))  # fmt: skip


# "a,b=HANDLE,c" in the environment, the default of each task first
ModelSpecs = Annotated[
    tuple[ModelSpec, ...], NoDecode, BeforeValidator(_parse), AfterValidator(_distinct)
]
BUNDLED = tuple(ModelSpec(name=name) for name in BUNDLED_NAMES)


def with_tasks(specs: Iterable[ModelSpec]) -> tuple[ModelSpec, ...]:
    """Give every model its task; a checkpoint's configuration is fetched where it is needed.

    Raises PresetError for a checkpoint that cannot be found, for one without a pipeline, for LoRAs
    of a model that does not paint, and for int8 of one that does.
    """
    return tuple(_with_task(spec) for spec in specs)


def _with_task(spec: ModelSpec) -> ModelSpec:
    task = _task_of(spec)
    if spec.loras and task is not Task.IMAGES:
        raise PresetError(f"model {spec.name} is for {task}; loras are for images alone")
    if spec.dtype == "int8" and task is Task.IMAGES:
        raise PresetError(
            f"model {spec.name} is for {task}; dtype int8 is for classify and embeddings alone"
        )
    levers = spec.execution or FixedExecution()
    if task is not Task.IMAGES and (levers.block_cache is not None or levers.channels_last):
        raise PresetError(
            f"model {spec.name} is for {task}; block_cache and channels_last are for images alone"
        )
    return spec.model_copy(update={"task": task})


def _task_of(spec: ModelSpec) -> Task:
    if spec.task is not None:
        return spec.task
    if spec.handle is None:
        task = PRESETS[spec.name].task
        assert task is not None, "this is a bug: `ModelSpec` takes only what can be served"
        return PRESET_TASKS[task]
    try:
        return PRESET_TASKS[detect_task(fetch(spec.handle, Part.CONFIG))]
    except PresetError as error:
        raise type(error)(f"model {spec.name}: {error}") from error


def as_json(specs: Iterable[ModelSpec]) -> str:
    """Write the list as `TRIPTYCH_MODELS` takes it."""
    return json.dumps([spec.model_dump(mode="json", exclude_defaults=True) for spec in specs])
