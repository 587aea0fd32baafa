"""The hand-written prompts that measure a painter: none is a sentence of the training captions.

`free_prompts.jsonl` has one prompt a line with the scene that it says, keys of what it leaves
unsaid absent; `outside_prompts.txt` has prompts that are about something else.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from training.shapes_world import COLOURS, PLACES, SHAPES, SIZES, Item, Layout, Scene

FREE_PROMPTS = Path(__file__).parent / "free_prompts.jsonl"
OUTSIDE_PROMPTS = Path(__file__).parent / "outside_prompts.txt"
NUM_ITEMS = {Layout.ONE: 1, Layout.ROW: 2, Layout.COLUMN: 2, Layout.TWO: 2, Layout.THREE: 3}


@dataclass(frozen=True, slots=True)
class FreePrompt:
    prompt: str
    said: Scene


def load_free_prompts(file: Path = FREE_PROMPTS) -> tuple[FreePrompt, ...]:
    """Read the prompts; raises pydantic's ValidationError for a line that says no scene."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(_Line.model_validate_json(line).as_free_prompt() for line in lines)


def load_outside_prompts(file: Path = OUTSIDE_PROMPTS) -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8").splitlines())


def _one_of(words: Collection[str]) -> AfterValidator:
    def check(word: str) -> str:
        if word not in words:
            raise ValueError(f"{word!r} is not one of {', '.join(words)}")
        return word

    return AfterValidator(check)


Colour = Annotated[str, _one_of(COLOURS)]


class _ItemOfLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: Colour | None = None
    shape: Annotated[str, _one_of(SHAPES)] | None = None
    size: Annotated[str, _one_of(SIZES)] | None = None


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    layout: Layout
    items: tuple[_ItemOfLine, ...]
    place: Annotated[str, _one_of(PLACES)] | None = None
    background: Colour | None = None

    @model_validator(mode="after")
    def _fits_its_layout(self) -> Self:
        if len(self.items) != NUM_ITEMS[self.layout]:
            raise ValueError(f"{len(self.items)} items in the layout {self.layout}")
        if self.place is not None and self.layout is not Layout.ONE:
            raise ValueError(f"a place for the layout {self.layout}")
        if self.background in {item.colour for item in self.items} - {None}:
            raise ValueError(f"a {self.background} shape on {self.background}")
        return self

    def as_free_prompt(self) -> FreePrompt:
        items = tuple(Item(item.colour, item.shape, item.size) for item in self.items)
        return FreePrompt(self.prompt, Scene(self.layout, items, self.place, self.background))
