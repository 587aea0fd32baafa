"""Sentences say what they are to say, and are recognised as sentences of the lists."""

import random
import re

import pytest

from training import captions
from training.caption_reader import can_be_drawn
from training.captions import (
    as_typed,
    caption,
    filler_sentence,
)
from training.sentence_forms import REFERRING_COLUMN_FORMS, REFERRING_ROW_FORMS
from training.sentence_words import COLOUR_WORDS, CORNER_PHRASES, SHAPE_WORDS, SIZE_WORDS
from training.shapes_world import Item, Layout, Scene, draw_said, single

STAR = single("green", "star", "large", "bottom right", "gray")


def has_word(sentence: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?:s|es)?(?!\w)", sentence) for word in words)


def test_every_drawn_sentence_is_recognised() -> None:
    rng = random.Random(0)
    sentences = [caption(draw_said(rng, held_out=True), rng) for _ in range(200)]

    assert [sentence for sentence in sentences if not can_be_drawn(sentence)] == []


def test_a_sentence_names_every_colour_and_shape_that_is_said() -> None:
    rng = random.Random(1)
    for _ in range(300):
        said = draw_said(rng)
        sentence = caption(said, rng)

        colours = [item.colour for item in said.items] + [said.background]
        assert all(has_word(sentence, COLOUR_WORDS[colour]) for colour in colours if colour)
        shapes = [item.shape for item in said.items]
        assert all(has_word(sentence, SHAPE_WORDS[shape]) for shape in shapes if shape)


def test_a_sentence_names_every_size_that_is_said() -> None:
    rng = random.Random(8)
    for _ in range(600):
        said = draw_said(rng)
        sentence = caption(said, rng)

        sizes = [item.size for item in said.items if item.size]
        assert all(has_word(sentence, SIZE_WORDS[size]) for size in sizes), (said, sentence)


def test_shapes_that_are_named_again_lie_where_the_scene_has_them() -> None:
    sides = {"left": {"left"}, "right": {"right"}, "upper": {"top", "above", "higher", "upper"},
             "lower": {"bottom", "below", "under", "lower"}}  # fmt: skip
    words = "|".join(word for each in sides.values() for word in each)
    num_checked = 0
    for form in (*REFERRING_ROW_FORMS, *REFERRING_COLUMN_FORMS):
        for name, word in re.findall(rf"{{the_(\w+)}}[^,.{{]*?\b({words})\b", form):
            assert word in sides[name], form
            num_checked += 1
    assert num_checked > 20


@pytest.mark.parametrize("corner", CORNER_PHRASES)
def test_the_phrases_for_a_corner_name_it(corner: str) -> None:
    level, side = corner.split()
    levels = {"top": ("top", "up"), "bottom": ("bottom", "down")}[level]
    for phrase in CORNER_PHRASES[corner]:
        assert has_word(phrase, (side,)), phrase
        assert has_word(phrase, levels), phrase


def test_both_is_said_of_two() -> None:
    rng = random.Random(9)
    three = Scene(Layout.THREE, (Item("red", "star", "large"),) * 3)

    assert not any("both" in caption(three, rng) for _ in range(300))


def test_a_sentence_names_no_other_colour() -> None:
    rng = random.Random(2)
    others = [words for colour, words in COLOUR_WORDS.items() if colour not in ("green", "gray")]
    for _ in range(100):
        sentence = caption(STAR, rng)

        assert not any(has_word(sentence, words) for words in others)


def test_one_scene_has_many_sentences() -> None:
    rng = random.Random(3)

    assert len({caption(STAR, rng) for _ in range(100)}) > 95


def test_a_vowel_has_an_before_it() -> None:
    rng = random.Random(4)
    orange = Scene(Layout.ONE, (Item("orange", "arrow"),), background="orange")

    assert not any(re.search(r"\ba [aeiou]", caption(orange, rng)) for _ in range(100))


@pytest.mark.parametrize(
    "sentence",
    [
        "red circle",
        "A RED CIRCLE!",
        "draw  an orange   star",
        "three gray crosses in a row",
        "in the top left corner a small blue ring, black background",
        "a pink heart on the left side of an orange moon",
    ],
)
def test_case_spaces_and_marks_at_the_end_do_not_matter(sentence: str) -> None:
    assert can_be_drawn(sentence)


@pytest.mark.parametrize(
    "sentence",
    ["", "a cat", "red", "red circle red circle", "the circle ought to be red", "four red stars"],
)
def test_other_sentences_are_not_recognised(sentence: str) -> None:
    assert not can_be_drawn(sentence)


def test_typing_adds_typos_and_capitals_to_some_sentences() -> None:
    rng = random.Random(5)
    typed = [as_typed("a large green star", rng) for _ in range(400)]

    assert 100 < sum(sentence == "a large green star" for sentence in typed) < 300
    assert any(sentence.isupper() for sentence in typed)
    assert any(sentence.endswith("!") for sentence in typed)


def test_a_telegram_still_says_every_colour_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "TELEGRAM_SHARE", 1.0)
    monkeypatch.setattr(captions, "FILLER_SHARE", 0.0)
    monkeypatch.setattr(captions, "TYPO_SHARE", 0.0)
    monkeypatch.setattr(captions, "DISTRACTION_SHARE", 0.0)
    rng = random.Random(7)
    typed = [
        as_typed("a red circle to the left of a blue ring on the black background", rng).lower()
        for _ in range(50)
    ]

    for word in ("red", "circle", "to", "left", "of", "blue", "ring", "on", "black", "background"):
        assert all(re.search(rf"\b{word}\b", sentence) for sentence in typed), word
    assert any(" a " not in f" {sentence} " for sentence in typed)


def test_filler_is_never_empty() -> None:
    rng = random.Random(6)

    assert all(filler_sentence(rng) for _ in range(100))
