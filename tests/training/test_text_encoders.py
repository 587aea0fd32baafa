"""What the text encoders of `flux_shapes` are trained to say."""

import random
from pathlib import Path

import pytest
import torch
from transformers import T5Tokenizer

from models.presets import get_preset
from training import text_encoders
from training.captions import caption
from training.shapes_world import Item, Layout, Scene, all_singles
from training.text_encoders import (
    NOTHING_SAID,
    WIDTH,
    build_clip_tokenizer,
    build_encoders,
    build_t5_tokenizer,
    code_words,
    draw_sentence,
    encode_said,
    lower_case_ids,
    share_read,
    warm_start_encoder,
)

RED_CIRCLE, BLUE_STAR = Item("red", "circle", "large"), Item("blue", "star")
SINGLE = Scene(Layout.ONE, (RED_CIRCLE,), "top left", "white")

BUNDLED = Path(get_preset("flux_shapes").handle)


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
            row = tokenizer(text, padding="max_length", truncation=True)
            assert len(row.input_ids) == tokenizer.model_max_length


@pytest.mark.parametrize("is_bundled", [False, True])
def test_t5_reads_a_sentence_without_typos_to_its_end(
    t5_tokenizer: T5Tokenizer, is_bundled: bool
) -> None:
    if is_bundled:  # which has an earlier vocabulary
        t5_tokenizer = T5Tokenizer.from_pretrained(BUNDLED / "tokenizer_2")
    rng, singles = random.Random(3), list(all_singles())
    scenes = [rng.choice(singles) for _ in range(1000)] + [
        draw_sentence(rng)[0] for _ in range(1000)
    ]
    sentences = [caption(said, rng) for said in scenes]
    num_tokens = [len(ids) for ids in t5_tokenizer(sentences).input_ids]
    assert max(num_tokens) <= t5_tokenizer.model_max_length


def test_layers_that_an_earlier_encoder_lacks_begin_without_effect(tmp_path: Path) -> None:
    t5_tokenizer, clip_tokenizer = build_t5_tokenizer(), build_clip_tokenizer()
    earlier_t5, earlier_clip = build_encoders(t5_tokenizer, clip_tokenizer)
    t5, clip = build_encoders(t5_tokenizer, clip_tokenizer)
    del earlier_t5.encoder.block[3:]
    del earlier_clip.encoder.layers[2:]
    earlier_t5.config.num_layers, earlier_clip.config.num_hidden_layers = 3, 2
    for model, tokenizer, part in (
        (earlier_t5, t5_tokenizer, "2"),
        (earlier_clip, clip_tokenizer, ""),
    ):
        model.save_pretrained(tmp_path / f"text_encoder{part}")
        tokenizer.save_pretrained(tmp_path / f"tokenizer{part}")

    warm_start_encoder(t5, t5_tokenizer, tmp_path / "text_encoder2", tmp_path / "tokenizer2")
    warm_start_encoder(clip, clip_tokenizer, tmp_path / "text_encoder", tmp_path / "tokenizer")

    ids = torch.tensor([t5_tokenizer("a red circle left of a star").input_ids])
    texts = (t5(ids).last_hidden_state, earlier_t5(ids).last_hidden_state)
    torch.testing.assert_close(*texts)
    ids = torch.tensor([clip_tokenizer("a red circle left of a star").input_ids])
    torch.testing.assert_close(clip(ids).pooler_output, earlier_clip(ids).pooler_output)


def test_an_earlier_encoder_gives_its_weights_and_the_words_that_it_knew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tokenizer = build_clip_tokenizer()
    monkeypatch.setattr(text_encoders, "_words", lambda: ("red", "circle"))
    small = build_clip_tokenizer()
    _, earlier = build_encoders(build_t5_tokenizer(), small)
    earlier.save_pretrained(tmp_path / "text_encoder")
    small.save_pretrained(tmp_path / "tokenizer")
    _, clip = build_encoders(build_t5_tokenizer(), tokenizer)
    fresh = clip.get_input_embeddings().weight.detach().clone()

    warm_start_encoder(clip, tokenizer, tmp_path / "text_encoder", tmp_path / "tokenizer")

    known, words = small.get_vocab(), tokenizer.get_vocab()
    taken, theirs = clip.get_input_embeddings().weight, earlier.get_input_embeddings().weight
    assert torch.equal(taken[words["red</w>"]], theirs[known["red</w>"]])
    assert torch.equal(taken[words["blue</w>"]], fresh[words["blue</w>"]])
    name = next(key for key in earlier.state_dict() if key.endswith("layers.2.mlp.fc1.weight"))
    assert torch.equal(clip.state_dict()[name], earlier.state_dict()[name])
