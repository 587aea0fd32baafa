"""The measuring command's verdicts, on images whose truth is known."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.flux.text_to_image import TextToImage
from training.free_prompts import FreePrompt
from training.measure import (
    canonical_sentence,
    draw_labelled,
    label_by_geometry,
    parse_arguments,
    settings_of,
)
from training.measure_flux import (
    BATCH_SIZE,
    PaintSettings,
    free_measurements,
    is_clean,
    judge,
    paint,
    write_wrong,
)
from training.measurement import Measurement, mean, share
from training.segmentation import Pixels
from training.shapes_world import Item, Layout, Scene, complete, render, single

RED_RING = FreePrompt("a ring!", single("red", "ring", "large", "top", "white"))
PAIR = FreePrompt("both!", Scene(Layout.ROW, (Item("red", "star"), Item("blue", "moon"))))
CROSSES = FreePrompt("crosses!", Scene(Layout.TWO, (Item("black", "cross"),) * 2))


def painted(scenes: Sequence[Scene]) -> list[Pixels]:
    rng = random.Random(3)
    return [np.asarray(render(complete(scene, rng), rng, 128)) for scene in scenes]


def test_images_of_what_was_asked_for_are_all_right() -> None:
    prompts = [RED_RING, PAIR, CROSSES]

    measured = free_measurements(judge(prompts, painted([one.said for one in prompts])))

    assert all(m.share == 1.0 for m in measured if m.count and "overlap" not in m.name)
    assert {m.name: m.count for m in measured}["free single: place"] == 1


def test_only_what_is_wrong_is_counted_as_wrong() -> None:
    other = single("red", "ring", "large", "bottom", "white")

    measured = free_measurements(judge([RED_RING, RED_RING], painted([RED_RING.said, other])))

    shares = {m.name.removeprefix("free single: "): m.share for m in measured}
    assert (shares["all that is said"], shares["place"], shares["shape"]) == (0.5, 0.5, 1.0)


def test_the_file_of_wrong_prompts_says_what_is_seen_instead(tmp_path: Path) -> None:
    other = single("red", "ring", "large", "bottom", "white")

    write_wrong(tmp_path / "wrong.jsonl", judge([RED_RING] * 2, painted([RED_RING.said, other])))

    (line,) = (tmp_path / "wrong.jsonl").read_text().splitlines()
    wrong = json.loads(line)
    assert (wrong["prompt"], wrong["seed"], wrong["wrong"]) == ("a ring!", 1, ["place"])
    assert wrong["seen"]["shapes"][0]["shape"] == "ring"


def test_every_prompt_is_painted_once_whatever_the_batch() -> None:
    pipeline = TextToImage.from_preset("flux_shapes")
    settings = PaintSettings(64, 64, num_steps=1, guidance_scale=3.0)

    images = paint(pipeline, ["a red ring"] * (BATCH_SIZE + 1), settings, "test")

    assert len(images) == BATCH_SIZE + 1
    assert images[0].shape == (64, 64, 3)


def test_a_image_with_a_shape_is_clean_and_one_of_noise_is_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    assert is_clean(*painted([RED_RING.said]))
    assert not is_clean(noise)


def test_renderings_of_every_kind_have_the_label_that_geometry_sees() -> None:
    rng = random.Random(11)
    drawn = [draw_labelled(rng) for _ in range(40)]

    assert [label_by_geometry(one.image) for one in drawn] == [one.label for one in drawn]
    assert {"no shape", "several"} <= {one.label for one in drawn}


def test_the_canonical_sentence_says_all_five_parts() -> None:
    scene = single("red", "circle", "large", "top left", "orange")

    assert canonical_sentence(scene) == (
        "a large red circle on an orange background at the top left"
    )


@pytest.mark.parametrize(("value", "verdict"), [(0.97, "ok"), (0.969, "TOO LOW")])
def test_the_table_says_what_falls_short(value: float, verdict: str) -> None:
    assert Measurement("place", value, asked=0.97, count=500).line.endswith(verdict)


def test_what_is_only_reported_has_no_verdict() -> None:
    assert Measurement("pairs", 0.5, asked=None, count=20).line.endswith("50.00% of   20")


def test_a_share_leaves_out_what_was_not_said() -> None:
    assert share("place", 0.9, [True, None, False]) == Measurement("place", 0.5, 0.9, 2)


def test_a_mean_of_nothing_is_too_low() -> None:
    assert "TOO LOW" in mean("overlap", 0.9, []).line


def test_settings_are_the_presets_unless_given() -> None:
    defaults = PaintSettings.defaults()

    assert settings_of(parse_arguments(["flux_shapes"])) == defaults
    words = ["flux_shapes", "--steps", "2", "--guidance", "1.5", "--bfloat16"]
    given = settings_of(parse_arguments(words))
    assert given == PaintSettings(defaults.width, defaults.height, 2, 1.5, True)


@pytest.mark.parametrize("option", [["--steps", "2"], ["--bfloat16"]])
def test_options_of_another_preset_are_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["vit_shapes", *option])

    assert "--steps" in capsys.readouterr().err
