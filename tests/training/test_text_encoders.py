"""What the text encoders of `flux_shapes` are trained to say."""

import pytest
import torch
from transformers import T5Tokenizer

from training.shapes_world import Item, Layout, Scene
from training.text_encoders import (
    MAX_TOKENS,
    NOTHING_SAID,
    WIDTH,
    build_clip_tokenizer,
    build_t5_tokenizer,
    code_words,
    encode_said,
    lower_case_ids,
    share_read,
)

RED_CIRCLE, BLUE_STAR = Item("red", "circle", "large"), Item("blue", "star")
SINGLE = Scene(Layout.ONE, (RED_CIRCLE,), "top left", "white")


@pytest.fixture(scope="module")
def t5_tokenizer() -> T5Tokenizer:
    return build_t5_tokenizer()


def test_every_part_of_a_scene_has_its_word() -> None:
    unsaid = ("unsaid",) * 3
    assert code_words(SINGLE) == ("one", "red", "circle", "large", *unsaid, "top left", "white")
    assert set(code_words(NOTHING_SAID)) == {"one", "unsaid"}


def test_a_pair_without_a_relation_is_read_as_a_row() -> None:
    pair, row = (Scene(layout, (RED_CIRCLE, BLUE_STAR)) for layout in (Layout.TWO, Layout.ROW))
    assert code_words(pair) == code_words(row)
    turned = Scene(Layout.ROW, (BLUE_STAR, RED_CIRCLE))
    assert code_words(turned) != code_words(row)


def test_codes_differ_and_are_read_back() -> None:
    scenes = [SINGLE, NOTHING_SAID, Scene(Layout.THREE, (BLUE_STAR,) * 3)]
    codes = encode_said(scenes)
    assert codes.shape == (3, WIDTH)
    assert torch.cdist(codes, codes).fill_diagonal_(9.0).min() > 4.0
    assert share_read(codes, scenes) == 1.0
    assert share_read(codes.roll(1, dims=0), scenes) == 0.0


def test_case_does_not_matter_to_t5(t5_tokenizer: T5Tokenizer) -> None:
    lower = lower_case_ids(t5_tokenizer)
    ids = [t5_tokenizer(text).input_ids for text in ("a red circle", "A RED Circle")]
    assert ids[0] != ids[1]
    assert lower[ids[0]].tolist() == lower[ids[1]].tolist() == ids[0]


def test_a_run_that_goes_on_reads_with_the_same_clip_tokenizer() -> None:
    assert build_clip_tokenizer().get_vocab() == build_clip_tokenizer().get_vocab()


def test_known_words_are_one_token_and_any_text_can_be_read(t5_tokenizer: T5Tokenizer) -> None:
    assert t5_tokenizer.tokenize("a red circle, top-left") == [
        "▁a", "▁red", "▁circle", ",", "▁top", "-", "left",
    ]  # fmt: skip
    clip_tokenizer = build_clip_tokenizer()
    assert clip_tokenizer.tokenize("a RED circle") == ["a</w>", "red</w>", "circle</w>"]
    for text in ("", "zebra", "红色圆圈", "🟥" * 40):
        for tokenizer in (t5_tokenizer, clip_tokenizer):
            row = tokenizer(text, padding="max_length", max_length=MAX_TOKENS, truncation=True)
            assert len(row.input_ids) == MAX_TOKENS
