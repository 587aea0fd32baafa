"""How well an image preset paints: its images of free and of drawn prompts, judged by pixels.

`vit_shapes` names the images of single shapes as well; it and the judge share no code, but it has
learned from such images, which the judge had named.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from models.vit.image_classifier import ImageClassifier
from training.captions import caption
from training.free_prompts import FreePrompt, load_free_prompts, load_outside_prompts
from training.geometry import DetectedShapes, detect_shapes
from training.measurement import Measurement, mean, share
from training.segmentation import Pixels
from training.shapes_world import Layout, Scene, all_singles, render
from training.verdict import Verdict, compare
from worker.image_limits import preset_limits

NUM_PROMPTS, NUM_HELD_OUT_PROMPTS = 500, 200
NUM_SEEDS = 2  # of a free prompt
CLEAN_OVERLAP = 0.8  # from here on a shape counts as cleanly painted
BATCH_SIZE = 20
SEED = 2026  # of the drawn scenes and sentences; no training uses it


@dataclass(frozen=True, slots=True)
class PaintSettings:
    """How to paint, at the preset's default size; by default also with its other defaults."""

    width: int
    height: int
    num_steps: int
    guidance_scale: float | None  # None for a backbone without guidance
    multiplies_in_bfloat16: bool = False  # as workers do, on processors that do so natively

    @classmethod
    def defaults(cls) -> "PaintSettings":
        limits = preset_limits("flux_shapes")
        return cls(
            limits.default_width,
            limits.default_height,
            limits.default_num_steps,
            limits.default_guidance_scale,
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """An image of a prompt, and what is there of what the prompt says."""

    prompt: str
    said: Scene
    detected: DetectedShapes
    verdict: Verdict

    @property
    def overlap(self) -> float:
        """Of the largest shape, with the ideal one."""
        largest = max(self.detected.shapes, key=lambda seen: seen.radius, default=None)
        return 0.0 if largest is None else largest.overlap


def measure_flux(directory: Path, settings: PaintSettings, wrong: Path | None) -> list[Measurement]:
    """Paint and judge all groups; `wrong` is a file for the free prompts that went wrong."""
    pipeline, rng = TextToImage.from_preset(directory), random.Random(SEED)
    if settings.multiplies_in_bfloat16:
        pipeline.pack(torch.bfloat16)
    if not pipeline.has_guidance:
        settings = replace(settings, guidance_scale=None)
    free = [free for free in load_free_prompts() for _ in range(NUM_SEEDS)]
    images = paint(pipeline, [one.prompt for one in free], settings, "free")
    judged = judge(free, images)
    if wrong is not None:
        write_wrong(wrong, judged)
    measured = free_measurements(judged)
    measured += _drawn_measurements(pipeline, settings, rng)
    outside = paint(pipeline, list(load_outside_prompts()), settings, "outside")
    measured.append(share("outside prompts: a clean image", None, [is_clean(p) for p in outside]))
    return [*measured, true_overlap(rng, settings.width)]


def paint(
    pipeline: TextToImage, prompts: Sequence[str], settings: PaintSettings, group: str
) -> list[Pixels]:
    """Paint each prompt once, with its own seed."""
    images: list[Pixels] = []
    for first in tqdm(range(0, len(prompts), BATCH_SIZE), desc=f"paint {group}"):
        text = pipeline.encode(prompts[first : first + BATCH_SIZE])
        steps = pipeline.denoise(
            text,
            range(first, first + len(text.text)),
            settings.width,
            settings.height,
            settings.num_steps,
            settings.guidance_scale,
        )
        *_, last = steps
        images.extend(pipeline.decode(last.patches, settings.width, settings.height))
    return images


def judge(prompts: Sequence[FreePrompt], images: Sequence[Pixels]) -> list[Judged]:
    detections = [detect_shapes(image) for image in images]
    return [
        Judged(one.prompt, one.said, detected, compare(one.said, detected))
        for one, detected in zip(prompts, detections, strict=True)
    ]


def free_measurements(judged: Sequence[Judged]) -> list[Measurement]:
    """Measure the free prompts by what they say: one shape, two in a relation, several."""
    singles = [one for one in judged if one.said.layout is Layout.ONE]
    related = [one for one in judged if one.said.layout in (Layout.ROW, Layout.COLUMN)]
    several = [one for one in judged if one.said.layout in (Layout.TWO, Layout.THREE)]
    of_a_kind = [one for one in several if len(set(one.said.items)) == 1]
    pairs = [one for one in several if len(set(one.said.items)) == 2]
    return [
        *_by_part("free single", singles, {
            "all that is said": 0.98, "colour": 0.995, "background": 0.99, "place": 0.99,
            "shape": 0.985, "size": None, "count": None}),
        mean("free single: overlap", 0.89, [one.overlap for one in singles]),
        *_by_part("free related", related, {
            "all that is said": 0.92, "relation": None, "colour": None, "shape": None,
            "size": None, "background": None, "count": None}),
        *_by_part("free of a kind", of_a_kind, {
            "all that is said": 0.90, "count": None, "colour": None, "shape": None}),
        *_by_part("free pairs", pairs, {"all that is said": None, "count": None}),
    ]  # fmt: skip


def _by_part(
    group: str, judged: Sequence[Judged], asked: dict[str, float | None]
) -> list[Measurement]:
    """Measure parts of the verdict, by their names."""
    measured = []
    for part, least in asked.items():
        name = "is_right" if part == "all that is said" else part
        answers: list[bool | None] = [getattr(one.verdict, name) for one in judged]
        measured.append(share(f"{group}: {part}", least, answers))
    return measured


def _drawn_measurements(
    pipeline: TextToImage, settings: PaintSettings, rng: random.Random
) -> list[Measurement]:
    """Measure sentences of the training captions that say all five parts of a single shape."""
    measured: list[Measurement] = []
    names: list[str] = []
    labels: list[str] = []
    classifier = ImageClassifier.from_preset("vit_shapes")
    for group, count, is_held_out, least in (
        ("seen", NUM_PROMPTS, False, 0.99),
        ("held out", NUM_HELD_OUT_PROMPTS, True, 0.96),
    ):
        fitting = [scene for scene in all_singles() if scene.is_held_out == is_held_out]
        prompts = [FreePrompt(caption(s, rng), s) for s in rng.sample(fitting, count)]
        images = paint(pipeline, [one.prompt for one in prompts], settings, group)
        judged = judge(prompts, images)
        measured += _by_part(group, judged, {
            "all that is said": least, "colour": None, "background": None, "place": None,
            "shape": None, "size": None, "count": None})  # fmt: skip
        measured.append(mean(f"{group}: overlap", None, [one.overlap for one in judged]))
        names += classify(classifier, images)
        labels += [one.said.items[0].label for one in prompts]
    answers = [name == label for name, label in zip(names, labels, strict=True)]
    return [*measured, share("seen and held out: vit_shapes top-1", 0.97, answers)]


def classify(classifier: ImageClassifier, images: Sequence[Pixels]) -> list[str]:
    prepared = [classifier.preprocess(Image.fromarray(image)) for image in images]
    batches = torch.split(torch.stack(prepared), 64)
    logits = torch.cat([classifier.logits(batch) for batch in batches])
    return [classifier.labels[i] for i in logits.argmax(dim=-1).tolist()]


def is_clean(image: Pixels) -> bool:
    """Whether an image shows at least one shape of the world."""
    return any(shape.overlap >= CLEAN_OVERLAP for shape in detect_shapes(image).shapes)


def true_overlap(rng: random.Random, side: int) -> Measurement:
    """Measure the overlap that renderings reach, the most that a painter could."""
    scenes = rng.sample(list(all_singles()), NUM_PROMPTS)
    detections = [detect_shapes(np.asarray(render(scene, rng, side))) for scene in scenes]
    overlaps = [shape.overlap for detected in detections for shape in detected.shapes]
    return mean("true renderings: overlap", None, overlaps)


def write_wrong(file: Path, judged: Sequence[Judged]) -> None:
    """Write what went wrong as JSON lines: the prompt, the wrong parts, and what is seen."""
    lines = []
    for number, one in enumerate(judged):
        if one.verdict.is_right:
            continue
        parts = [part for part, is_right in asdict(one.verdict).items() if is_right is False]
        line = {"prompt": one.prompt, "seed": number, "wrong": parts, "seen": asdict(one.detected)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    file.write_text("".join(lines), encoding="utf-8")
