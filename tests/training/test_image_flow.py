"""What the text features go through before the image model learns from them."""

import random

import pytest
import torch

from training import image_flow
from training.image_flow import misread
from training.text_encoders import (
    CODE,
    PART_OF_FEATURE,
    WIDTH,
    code_words,
    draw_sentence,
    encode_said,
)


def test_clip_misreads_whole_parts_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    scenes = [draw_sentence(rng)[0] for _ in range(400)]
    said = [code_words(scene) for scene in scenes]
    monkeypatch.setattr(image_flow, "CLIP_WRONG_SHARE", 0.5)

    codes = misread(encode_said(scenes), torch.Generator().manual_seed(1))

    num_changed = 0
    for i in range(1, len(scenes)):
        words = read_words(codes[i])
        assert all(word in (said[i][k], said[i - 1][k]) for k, word in enumerate(words))
        num_changed += words != said[i]
    assert 300 < num_changed < 399
    assert torch.equal(
        codes[:, len(PART_OF_FEATURE) :], torch.zeros(400, WIDTH - len(PART_OF_FEATURE))
    )


def read_words(code: torch.Tensor) -> tuple[str, ...]:
    parts = torch.split(code[: len(PART_OF_FEATURE)], [len(words) for words in CODE])
    return tuple(words[part.argmax()] for words, part in zip(CODE, parts, strict=True))
