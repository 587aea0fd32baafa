"""The benchmark of photographs: like is compared with like, and each is measured."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.photographs import ours_like_transformers, prepare_once, theirs


def test_both_make_the_same_input_of_a_photograph(tmp_path: Path) -> None:
    file = tmp_path / "photograph.jpeg"
    Image.effect_noise((600, 400), 80).convert("RGB").save(file)
    content = file.read_bytes()

    mine: Any = ours_like_transformers()(content)
    other: Any = theirs()(content)

    expected = other["pixel_values"][0].permute(1, 2, 0)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def test_one_process_says_time_and_memory(tmp_path: Path) -> None:
    file = tmp_path / "photograph.png"
    Image.new("RGB", (1000, 800)).save(file)

    measured = prepare_once("triptych, vit_shapes", file)

    assert measured.ms > 0
    assert measured.peak_mb >= 0
