"""The hand-written prompts: enough, all different, and none that training can have shown."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.caption_reader import can_be_drawn
from training.free_prompts import load_free_prompts, load_outside_prompts
from training.shapes_world import COLOURS, PLACES, SHAPES, Item, Layout, Scene

FREE = load_free_prompts()


def test_there_are_enough_of_each_layout() -> None:
    counts = Counter(one.said.layout for one in FREE)

    assert len(FREE) >= 420
    assert counts[Layout.ONE] >= 300
    assert min(counts[layout] for layout in Layout) >= 20


def test_no_prompt_is_there_twice() -> None:
    prompts = [one.prompt.lower().strip(" .!?") for one in FREE]

    assert [prompt for prompt, count in Counter(prompts).items() if count > 1] == []


def test_no_prompt_is_a_sentence_of_the_training_captions() -> None:
    assert [one.prompt for one in FREE if can_be_drawn(one.prompt)] == []


def test_every_colour_with_every_shape_and_all_places_and_backgrounds_are_asked_for() -> None:
    singles = [one.said for one in FREE if one.said.layout is Layout.ONE]
    items = [said.items[0] for said in singles]

    wanted = {(colour, shape) for colour in COLOURS for shape in SHAPES}
    assert {(item.colour, item.shape) for item in items} >= wanted
    assert {said.place for said in singles} >= set(PLACES)
    assert {said.background for said in singles} >= set(COLOURS)


def test_unsaid_parts_are_none(tmp_path: Path) -> None:
    line = '{"prompt": "red!", "layout": "one", "items": [{"colour": "red"}], "place": "top"}'

    (free,) = load_free_prompts(written(tmp_path, line))

    assert free.prompt == "red!"
    assert free.said == Scene(Layout.ONE, (Item(colour="red"),), place="top")


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a", "layout": "one", "items": [{"colour": "crimson"}]}',
        '{"prompt": "a", "layout": "one", "items": [{"color": "red"}]}',
        '{"prompt": "a", "layout": "one", "items": [{"colour": "red"}], "place": "middle"}',
        '{"prompt": "a", "layout": "row", "items": [{"colour": "red"}]}',
        '{"prompt": "a", "layout": "three", "items": [{}, {}, {}], "place": "top"}',
        '{"prompt": "a", "layout": "one", "items": [{"colour": "red"}], "background": "red"}',
        '{"layout": "one", "items": [{"colour": "red"}]}',
    ],
)
def test_a_line_that_says_no_scene_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValidationError):
        load_free_prompts(written(tmp_path, line))


def test_outside_prompts_are_no_sentences_of_the_training_captions() -> None:
    outside = load_outside_prompts()

    assert len(outside) >= 20
    assert not any(can_be_drawn(prompt) for prompt in outside)


def written(directory: Path, line: str) -> Path:
    file = directory / "prompts.jsonl"
    file.write_text(line + "\n")
    return file
