"""Measure how good a bundled preset is: `python -m training.measure PRESET [--preset DIR]`.

Images are judged by `geometry` and `verdict`, from their pixels alone. Writes a table to the log
and everything as JSON, with the machine that it ran on.
"""

import argparse
import json
import logging
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from models.fnet.text_embedder import TextEmbedder
from models.presets import get_preset
from models.vit.image_classifier import ImageClassifier
from training.captions import caption
from training.f_net_shapes import fits
from training.free_prompts import load_free_prompts
from training.geometry import detect_shapes
from training.measure_flux import SEED, PaintSettings, classify, measure_flux
from training.measurement import Measurement, share
from training.segmentation import Pixels
from training.shapes_world import (
    COLOURS,
    Item,
    Layout,
    Scene,
    all_singles,
    complete,
    draw_said,
    render,
)
from training.vit_images import NO_SHAPE, SEVERAL

logger = logging.getLogger(__name__)

NUM_RENDERINGS, RENDER_SIDE, PLAIN_SHARE = 2000, 128, 0.05
NUM_CAPTIONS = 1000
NUM_CANDIDATES = 200  # among them the one that is looked for
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Labelled:
    image: Pixels
    label: str


def measure_vit(directory: Path) -> list[Measurement]:
    """Classify fresh renderings, which the judge by pixels is checked on as well."""
    rng, classifier = random.Random(SEED), ImageClassifier.from_preset(directory)
    drawn = [draw_labelled(rng) for _ in tqdm(range(NUM_RENDERINGS), desc="render")]
    named = classify(classifier, [one.image for one in drawn])
    seen = [label_by_geometry(one.image) for one in tqdm(drawn, desc="geometry")]
    return [
        share("top-1", 0.995, [one.label == n for one, n in zip(drawn, named, strict=True)]),
        share("the judge by pixels on the same", 0.995,
              [one.label == name for one, name in zip(drawn, seen, strict=True)]),
    ]  # fmt: skip


def draw_labelled(rng: random.Random) -> Labelled:
    """Render a scene of any combination, or a plain image without a shape."""
    if rng.random() < PLAIN_SHARE:
        colour = COLOURS[rng.choice(tuple(COLOURS))]
        plain = Image.new("RGB", (RENDER_SIDE, RENDER_SIDE), colour)
        return Labelled(np.asarray(plain), NO_SHAPE)
    scene = complete(draw_said(rng, held_out=True), rng)
    image = np.asarray(render(scene, rng, RENDER_SIDE))
    return Labelled(image, scene.items[0].label if scene.layout is Layout.ONE else SEVERAL)


def label_by_geometry(image: Pixels) -> str:
    shapes = detect_shapes(image).shapes
    if len(shapes) == 1:
        return Item(shapes[0].colour, shapes[0].shape).label
    return SEVERAL if shapes else NO_SHAPE


def measure_f_net(directory: Path) -> list[Measurement]:
    """Find a scene's other sentence among 1,000, and what a free prompt says among 200."""
    rng, embedder = random.Random(SEED), TextEmbedder.from_preset(directory)
    scenes = rng.sample(list(all_singles()), NUM_CAPTIONS)
    spoken = [_two_sentences(scene, rng) for scene in scenes]
    asked, stored = (_embed(embedder, list(side)) for side in zip(*spoken, strict=True))
    found = (asked @ stored.T).argmax(dim=-1).tolist()
    return [
        share("paraphrase found", 0.99, [i == row for row, i in enumerate(found)]),
        share("free prompt: its scene found", None, _free_found(embedder, scenes, rng)),
    ]


def canonical_sentence(scene: Scene) -> str:
    """Say all five parts of a single shape in the plainest words."""
    item = scene.items[0]
    article = "an" if (scene.background or "")[:1] in "aeiou" else "a"
    return (
        f"a {item.size} {item.colour} {item.shape} on {article} {scene.background} background "
        f"at the {scene.place}"
    )


def _free_found(embedder: TextEmbedder, scenes: Sequence[Scene], rng: random.Random) -> list[bool]:
    """Whether each free prompt of one shape is nearest to its own scene, among others that differ.

    The other scenes are such that the prompt does not fit them.
    """
    free = [one for one in load_free_prompts() if one.said.layout is Layout.ONE]
    prompts = _embed(embedder, [one.prompt for one in free])
    own = _embed(embedder, [canonical_sentence(complete(one.said, rng)) for one in free])
    stored = _embed(embedder, [canonical_sentence(scene) for scene in scenes])
    found = []
    for one, prompt, own_embedding in zip(free, prompts, own, strict=True):
        others = [i for i, scene in enumerate(scenes) if not fits(one.said, scene)]
        chosen = rng.sample(others, NUM_CANDIDATES - 1)
        found.append(bool((stored[chosen] @ prompt).max() < own_embedding @ prompt))
    return found


def _two_sentences(scene: Scene, rng: random.Random) -> tuple[str, str]:
    first = caption(scene, rng)
    while (second := caption(scene, rng)) == first:
        pass
    return first, second


def _embed(embedder: TextEmbedder, texts: list[str]) -> torch.Tensor:
    """One text at a time, as a client without a batch sees it."""
    return torch.cat(
        [embedder.embed([embedder.tokenize(text)]) for text in tqdm(texts, desc="embed")]
    )


def machine() -> dict[str, str | int]:
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in cpu_lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("flux_shapes", "vit_shapes", "f_net_shapes"))
    parser.add_argument("--preset", type=Path, help="a candidate's directory; else the bundled one")
    parser.add_argument(
        "--output", type=Path, help="the JSON file; else training/results/NAME.json"
    )
    flux = parser.add_argument_group("flux_shapes only")
    flux.add_argument("--steps", type=int, help="else the preset's default")
    flux.add_argument("--guidance", type=float, help="else the preset's default")
    flux.add_argument(
        "--bfloat16", action="store_true", help="multiply as workers do; else float32"
    )
    flux.add_argument("--wrong", type=Path, help="a file for the free prompts that went wrong")
    arguments = parser.parse_args(words)
    flux_only = (arguments.steps, arguments.guidance, arguments.wrong)
    is_given = arguments.bfloat16 or any(each is not None for each in flux_only)
    if arguments.name != "flux_shapes" and is_given:
        parser.error(f"--steps, --guidance, --bfloat16 and --wrong are not for {arguments.name}")
    return arguments


def settings_of(arguments: argparse.Namespace) -> PaintSettings:
    settings = PaintSettings.defaults()
    if arguments.steps is not None:
        settings = replace(settings, num_steps=arguments.steps)
    if arguments.guidance is not None:
        settings = replace(settings, guidance_scale=arguments.guidance)
    return replace(settings, multiplies_in_bfloat16=arguments.bfloat16)


def measure(arguments: argparse.Namespace) -> list[Measurement]:
    directory = arguments.preset or Path(get_preset(arguments.name).handle)
    if arguments.name == "flux_shapes":
        return measure_flux(directory, settings_of(arguments), arguments.wrong)
    return measure_vit(directory) if arguments.name == "vit_shapes" else measure_f_net(directory)


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.monotonic()
    measured = measure(arguments)
    seconds = round(time.monotonic() - started, 1)
    logger.info("%s", "\n".join(measurement.line for measurement in measured))
    output = arguments.output or RESULTS / f"{arguments.name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, object] = {"preset": arguments.name, "seconds": seconds, "machine": machine()}
    if arguments.name == "flux_shapes":
        result["settings"] = asdict(settings_of(arguments))
    result["measurements"] = [asdict(measurement) for measurement in measured]
    output.write_text(json.dumps(result, indent=2) + "\n")
    logger.info("measured preset=%s seconds=%.1f output=%s", arguments.name, seconds, output)


if __name__ == "__main__":
    main()
