"""Rows that share a forward: each is painted as it is alone, float32 on the CPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.flux.latents import Start
from models.flux.placement import RESIDENT, Placement
from models.flux.rows import PaintRow
from models.flux.text_to_image import Negative, TextToImage
from tests.models.flux.loops import PROMPT, PROMPTS, UNWANTED, Pipelines, start_image
from tests.models.flux.lora_styles import (
    KOHYA,
    PEFT,
    linear_sizes,
    random_adapters,
    with_underscores,
)

LATENTS = 2e-5  # products of other batch sizes round differently, at each step
WIDE, HIGH = (96, 64), (64, 96)  # as many patches
STREAMED = Placement(num_streamed_blocks=4, streams_text_encoder=True)


@dataclass(frozen=True, slots=True)
class Wish:
    """What one row is to be."""

    prompt: str = PROMPT
    seed: int = 7
    size: tuple[int, int] = WIDE
    num_steps: int = 5
    guidance_scale: float | None = 3.5
    true_cfg_scale: float | None = None
    strength: float | None = None
    flow_shift: float | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def begin(self, pipeline: TextToImage) -> PaintRow:
        loras = dict(self.loras)
        negative = start = None
        if self.true_cfg_scale is not None:
            negative = Negative(pipeline.encode([UNWANTED], loras=loras), self.true_cfg_scale)
        if self.strength is not None:
            start = Start([start_image(self.seed)], self.strength)
        (row,) = pipeline.begin(
            pipeline.encode([self.prompt], loras=loras),
            [self.seed],
            *self.size,
            self.num_steps,
            self.guidance_scale,
            negative=negative,
            start=start,
            flow_shift=self.flow_shift,
            loras=loras,
        )
        return row


PLAIN = Wish()
EIGHT = (
    PLAIN,
    Wish(seed=8, num_steps=3, guidance_scale=1.0, flow_shift=4.0),
    Wish(PROMPTS[1], seed=9, size=HIGH, num_steps=7),
    Wish(seed=10, loras=(("brush", 0.7),)),
    Wish(seed=11, num_steps=4, true_cfg_scale=3.0),
    Wish(PROMPTS[1], seed=12, size=HIGH, strength=0.6, loras=(("ink", -0.5),)),
    Wish(seed=13, guidance_scale=2.5, loras=(("ink", 0.4), ("brush", 1.2))),
    Wish(seed=14, num_steps=6, true_cfg_scale=2.0, strength=0.8, loras=(("brush", 0.7),)),
)


def load_with_loras(directory: Path, loras: Path, placement: Placement = RESIDENT) -> TextToImage:
    """Load two LoRAs at scale 0: `brush` for all linear layers, `ink` for some and for CLIP."""
    pipeline = TextToImage.from_preset(directory, placement=placement)
    sizes = linear_sizes(pipeline.backbone)
    brush = random_adapters(sizes, PEFT)
    some = {name: size for name, size in sizes.items() if ".linear1" in name or "mod" in name}
    clip_sizes = linear_sizes(pipeline.text_encoders.clip)
    of_clip = random_adapters(
        {f"text_model.{name}": size for name, size in clip_sizes.items()}, KOHYA
    )
    ink = random_adapters(some, PEFT, seed=1) | with_underscores(of_clip, "lora_te1_")
    for name, tensors in (("brush", brush), ("ink", ink)):
        file = loras / f"{name}.safetensors"
        save_file({key: 0.3 * each for key, each in tensors.items()}, file)
        pipeline.load_lora(file, scale=0.0)
    return pipeline


@pytest.fixture(scope="module")
def pipeline(pipelines: Pipelines, tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return load_with_loras(pipelines["dev"][1], tmp_path_factory.mktemp("loras"))


def paint(
    pipeline: TextToImage, rows: Sequence[PaintRow], joins_at: Callable[[int], int] = lambda _: 0
) -> None:
    """Take all steps of rows that join before the step that `joins_at` gives for their index."""
    number = 0
    while not all(row.is_done for row in rows):
        joined = [row for index, row in enumerate(rows) if joins_at(index) <= number]
        if running := [row for row in joined if not row.is_done]:
            pipeline.step(running)
        number += 1


def paint_together(pipeline: TextToImage, wishes: Sequence[Wish]) -> list[PaintRow]:
    rows = [wish.begin(pipeline) for wish in wishes]
    paint(pipeline, rows)
    return rows


def paint_alone(pipeline: TextToImage, wish: Wish) -> PaintRow:
    (row,) = paint_together(pipeline, [wish])
    return row


def picture(pipeline: TextToImage, row: PaintRow) -> Tensor:
    levels = pipeline.decode(row.patches[None], row.width, row.height)[0]
    return torch.from_numpy(levels).int()


@pytest.mark.parametrize(
    "placement",
    [RESIDENT, STREAMED, Placement(float8=True), replace(STREAMED, float8=True)],
    ids=["resident", "streamed", "float8", "streamed float8"],
)
def test_a_row_is_painted_alike_alone_and_in_any_company(
    pipelines: Pipelines, tmp_path: Path, placement: Placement
) -> None:
    pipeline = load_with_loras(pipelines["dev"][1], tmp_path, placement)
    together = [wish.begin(pipeline) for wish in EIGHT]
    # they come two by two, and each leaves after its own last step
    paint(pipeline, together, joins_at=lambda index: index // 2)
    for wish, row in zip(EIGHT, together, strict=True):
        alone = paint_alone(pipeline, wish)
        torch.testing.assert_close(row.patches, alone.patches, atol=LATENTS, rtol=0)
        difference = picture(pipeline, row) - picture(pipeline, alone)
        assert difference.abs().max() <= 1


def test_rows_of_mixed_guidance_and_steps_equal_diffusers(pipelines: Pipelines) -> None:
    oracle, directory = pipelines["dev"]
    wishes = [Wish(guidance_scale=1.5), Wish(PROMPTS[1], seed=3, num_steps=8, guidance_scale=4.0)]
    rows = paint_together(TextToImage.from_preset(directory), wishes)
    for wish, row in zip(wishes, rows, strict=True):
        expected = oracle(
            wish.prompt,
            width=wish.size[0],
            height=wish.size[1],
            num_inference_steps=wish.num_steps,
            guidance_scale=wish.guidance_scale,
            generator=torch.Generator().manual_seed(wish.seed),
            max_sequence_length=48,
            output_type="latent",
        ).images
        torch.testing.assert_close(row.patches[None], expected, atol=LATENTS, rtol=0)


def test_the_library_paints_what_rows_paint_bit_for_bit(pipeline: TextToImage) -> None:
    text = pipeline.encode(PROMPTS)
    *_, last = pipeline.denoise(text, [7, 8], *WIDE, num_steps=4, guidance_scale=3.5)
    wishes = [Wish(prompt, seed, num_steps=4) for prompt, seed in zip(PROMPTS, (7, 8), strict=True)]
    rows = paint_together(pipeline, wishes)
    assert torch.equal(torch.stack([row.patches for row in rows]), last.patches)


def test_a_lora_of_a_neighbour_changes_no_bit(pipeline: TextToImage) -> None:
    wishes = [replace(PLAIN, seed=seed) for seed in range(3)]
    without = paint_together(pipeline, wishes)
    wishes[1] = replace(wishes[1], loras=(("brush", 1.0), ("ink", 1.0)))
    beside = paint_together(pipeline, wishes)
    assert torch.equal(beside[0].patches, without[0].patches)
    assert torch.equal(beside[2].patches, without[2].patches)
    assert not torch.allclose(beside[1].patches, without[1].patches, atol=0.01)


def test_loras_that_are_not_said_are_as_they_are_set(pipeline: TextToImage) -> None:
    text = pipeline.encode([PROMPT])
    pipeline.set_lora_scales({"brush": 0.7})
    (row,) = pipeline.begin(text, [7], *WIDE, 5, 3.5)
    pipeline.set_lora_scales({"brush": 0.0})
    assert dict(row.loras) == {"brush": 0.7}


def test_painting_leaves_the_scales_as_they_are_set(pipeline: TextToImage) -> None:
    paint_alone(pipeline, Wish(num_steps=1, loras=(("brush", 0.7),)))
    assert pipeline.lora_scales == {"brush": 0.0, "ink": 0.0}


def test_a_prompt_is_read_with_the_loras_of_its_call(pipeline: TextToImage) -> None:
    plain = pipeline.encode([PROMPT], loras={})
    inked = pipeline.encode([PROMPT], loras={"ink": 0.5})
    pipeline.set_lora_scales({"ink": 0.5})
    expected = pipeline.encode([PROMPT])
    pipeline.set_lora_scales({"ink": 0.0})
    assert torch.equal(inked.pooled, expected.pooled)
    assert not torch.allclose(inked.pooled, plain.pooled, atol=0.01)


def test_prompts_are_read_while_other_rows_are_painted(pipeline: TextToImage) -> None:
    wishes = [replace(wish, num_steps=20) for wish in EIGHT[3:]]
    scales = [0.1 * index for index in range(30)]

    def read() -> list[Tensor]:
        given = ({"ink": scale, "brush": 1.0} for scale in scales)
        return [pipeline.encode([PROMPT], loras=loras).pooled for loras in given]

    expected_rows, expected_texts = paint_together(pipeline, wishes), read()
    rows = [wish.begin(pipeline) for wish in wishes]
    with ThreadPoolExecutor(1) as pool:
        texts = pool.submit(read)
        paint(pipeline, rows)
    for row, expected in zip(rows, expected_rows, strict=True):
        torch.testing.assert_close(row.patches, expected.patches, atol=LATENTS, rtol=0)
    for text, expected_text in zip(texts.result(), expected_texts, strict=True):
        torch.testing.assert_close(text, expected_text, atol=1e-5, rtol=0)


def test_a_row_knows_where_it_stands(pipeline: TextToImage) -> None:
    row = replace(PLAIN, num_steps=2, true_cfg_scale=2.0).begin(pipeline)
    assert (row.step, row.num_steps, row.sigma, row.is_done) == (0, 2, 1.0, False)
    assert (row.num_patches, row.num_text_tokens, row.num_places) == (24, 48, 2)
    pipeline.step([row])
    pipeline.step([row])
    assert (row.step, row.sigma, row.is_done) == (2, 0.0, True)


def test_a_start_image_leaves_out_the_first_steps(pipeline: TextToImage) -> None:
    assert replace(PLAIN, strength=0.6).begin(pipeline).num_steps == 3


def test_the_rows_of_a_call_share_what_is_made_of_their_start_image(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sizes = pipeline.autoencoder.encode, list[int]()

    def count(pixels: Tensor) -> object:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(pipeline.autoencoder, "encode", count)
    text, start = pipeline.encode([PROMPT]), Start([start_image(7)], 0.6)
    together = pipeline.begin(text, [1, 2, 3], *WIDE, 5, 3.5, start=start)
    assert sizes == [1]
    for seed, row in zip((1, 2, 3), together, strict=True):
        (alone,) = pipeline.begin(text, [seed], *WIDE, 5, 3.5, start=start)
        assert torch.equal(row.patches, alone.patches)


def test_rows_that_cannot_share_a_forward_are_refused(pipeline: TextToImage) -> None:
    small = replace(PLAIN, size=(64, 64)).begin(pipeline)
    large = PLAIN.begin(pipeline)
    with pytest.raises(ValueError, match="same patches and text tokens; got 16 and 48, 24 and 48"):
        pipeline.step([large, small])
    assert (large.step, small.step) == (0, 0)


def test_a_row_that_is_done_is_refused(pipeline: TextToImage) -> None:
    done = paint_alone(pipeline, replace(PLAIN, num_steps=1))
    waiting = PLAIN.begin(pipeline)
    with pytest.raises(ValueError, match="a row has done all of its steps"):
        pipeline.step([waiting, done])
    assert waiting.step == 0


def test_a_step_of_no_rows_is_refused(pipeline: TextToImage) -> None:
    with pytest.raises(ValueError, match="there is no row"):
        pipeline.step([])


def test_a_negative_prompt_of_another_length_is_refused(pipeline: TextToImage) -> None:
    negative = Negative(pipeline.encode([UNWANTED], 16), 2.0)
    with pytest.raises(ValueError, match=r"the negative prompt has 16 text tokens; .* 48 are"):
        pipeline.begin(pipeline.encode([PROMPT]), [7], *WIDE, 5, 3.5, negative=negative)


def test_more_prompts_than_rows_are_refused(pipeline: TextToImage) -> None:
    with pytest.raises(ValueError, match="2 prompts do not go with 1 seeds"):
        pipeline.begin(pipeline.encode(PROMPTS), [7], *WIDE, 5, 3.5)


def test_a_lora_that_is_not_loaded_is_refused(pipeline: TextToImage) -> None:
    text = pipeline.encode([PROMPT])
    with pytest.raises(ValueError, match="no LoRA is attached as 'oil'; attached: brush, ink"):
        pipeline.begin(text, [7], *WIDE, 5, 3.5, loras={"oil": 1.0})
    with pytest.raises(ValueError, match="scale is inf"):
        pipeline.encode([PROMPT], loras={"ink": float("inf")})
