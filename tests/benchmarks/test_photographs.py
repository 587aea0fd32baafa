"""The benchmark of photographs: like is compared with like, and each is measured."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.photographs import in_own_process, ours_like_transformers, theirs


def test_both_make_the_same_input_of_a_photograph(tmp_path: Path) -> None:
    file = tmp_path / "photograph.jpeg"
    Image.effect_noise((600, 400), 80).convert("RGB").save(file)
    content = file.read_bytes()

    mine: Any = ours_like_transformers()(content)
    other: Any = theirs()(content)

    expected = other["pixel_values"][0].permute(1, 2, 0)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def test_a_process_says_what_memory_a_photograph_takes(tmp_path: Path) -> None:
    file = tmp_path / "photograph.png"
    Image.new("RGB", (3000, 2000)).save(file)

    measured = in_own_process("triptych, vit_shapes", file)

    assert measured.ms > 0
    assert measured.peak_mb > 15  # 18 MB decoded
