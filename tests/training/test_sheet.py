"""The sheet of images with their prompts."""

import numpy as np
import pytest

from training.sheet import MARGIN, PROMPTS, TEXT_HEIGHT, broken, draw_sheet


@pytest.mark.parametrize(
    ("prompt", "lines"),
    [
        ("a cat", "a cat"),
        (
            "a white heart to the right of a black square",
            "a white heart to the\nright of a black square",
        ),
        ("one two three " * 9, "one two three one two\nthree one two three one…"),
        ("", ""),
    ],
)
def test_a_prompt_is_broken_into_two_lines(prompt: str, lines: str) -> None:
    assert broken(prompt) == lines


def test_images_lie_in_rows() -> None:
    images = [np.full((16, 16, 3), grey, dtype=np.uint8) for grey in (10, 90, 250)]
    sheet = np.asarray(draw_sheet(["a", "b", "c"], images, num_columns=2))
    across, down = 16 + MARGIN, 16 + TEXT_HEIGHT + MARGIN
    assert sheet.shape == (2 * down + MARGIN, 2 * across + MARGIN, 3)
    for row, column, grey in ((0, 0, 10), (0, 1, 90), (1, 0, 250)):
        y, x = MARGIN + row * down, MARGIN + column * across
        assert (sheet[y : y + 16, x : x + 16] == grey).all()


def test_sixty_prompts_are_painted() -> None:
    assert len(set(PROMPTS.read_text(encoding="utf-8").splitlines())) == 60
