"""Measure how good a bundled preset is: `python -m training.measure PRESET [--preset DIR]`.

The painter is judged by its pictures alone, twice: by `vit_shapes` and by `geometry`, which share
no code. Writes a table to the log and everything as JSON, with the machine that it ran on.
"""

import argparse
import json
import logging
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from models.fnet.text_embedder import TextEmbedder
from models.presets import get_preset
from models.vit.image_classifier import ImageClassifier
from training.geometry import Pixels, see
from training.pictures import draw_scenes, seen_scenes
from training.shapes_world import Scene, all_scenes, caption, render

logger = logging.getLogger(__name__)

NUM_PROMPTS, NUM_HELD_OUT_PROMPTS, NUM_STEPS = 500, 200, 8
NUM_RENDERINGS, RENDER_SIDE = 2000, 128
NUM_CAPTIONS = 1000
BATCH_SIZE = 20
SEED = 2026  # of the drawn scenes and sentences; no training uses it
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A share of right answers, in [0, 1], and what is asked for."""

    name: str
    share: float
    asked: float
    count: int

    @property
    def line(self) -> str:
        verdict = "ok" if self.share >= self.asked else "TOO LOW"
        return (
            f"{self.name:<42} {self.share:7.2%} of {self.count:4} (>= {self.asked:.1%}) {verdict}"
        )


def share(name: str, asked: float, answers: Sequence[bool]) -> Measurement:
    return Measurement(name, float(np.mean(answers)), asked, len(answers))


def measure_flux(directory: Path) -> list[Measurement]:
    """Paint prompts of seen and of held-out scenes, and look at the pictures."""
    pipeline, rng = TextToImage.from_preset(directory), random.Random(SEED)
    classifier = ImageClassifier.from_preset("vit_shapes")
    held_out = [scene for scene in all_scenes() if scene.is_held_out]
    measured = []
    for group, scenes, asked in (
        ("seen", draw_scenes(NUM_PROMPTS, rng, seen_scenes()), (0.97, 0.95, 0.92)),
        ("held out", draw_scenes(NUM_HELD_OUT_PROMPTS, rng, held_out), (0.90, 0.90, 0.80)),
    ):
        pictures = paint(pipeline, [caption(scene, rng) for scene in scenes], group)
        measured += judge(group, scenes, pictures, classifier, asked)
    return measured


def paint(pipeline: TextToImage, prompts: list[str], group: str) -> list[Pixels]:
    """Paint each prompt once, with its own seed, at the preset's defaults and 8 steps."""
    limits = get_preset("flux_shapes").image_limits
    assert limits is not None, "this is a bug: an image preset without image limits"
    width, height = limits.default_width, limits.default_height
    guidance_scale = limits.default_guidance_scale if pipeline.has_guidance else None
    pictures: list[Pixels] = []
    for first in tqdm(range(0, len(prompts), BATCH_SIZE), desc=f"paint {group}"):
        text = pipeline.encode(prompts[first : first + BATCH_SIZE])
        seeds = range(first, first + len(text.text))
        steps = pipeline.denoise(text, seeds, width, height, NUM_STEPS, guidance_scale)
        *_, last = steps
        pictures.extend(pipeline.decode(last.patches, width, height))
    return pictures


def judge(
    group: str,
    scenes: Sequence[Scene],
    pictures: Sequence[Pixels],
    classifier: ImageClassifier,
    asked: tuple[float, float, float],
) -> list[Measurement]:
    """Compare what was asked for with what is there; `asked` for colours, position, shape."""
    colours, position, shape = asked
    sights = [see(picture) for picture in pictures]
    named = [label.split() for label in classify(classifier, pictures)]

    def against(
        name: str, least: float, seen: Sequence[str | None], wanted: list[str]
    ) -> Measurement:
        return share(f"{group}: {name}", least, [s == w for s, w in zip(seen, wanted, strict=True)])

    wanted_colours = [scene.colour for scene in scenes]
    wanted_shapes = [scene.shape for scene in scenes]
    return [
        against("background colour", colours, [sight.background for sight in sights],
                [scene.background for scene in scenes]),
        against("shape colour", colours, [sight.colour for sight in sights], wanted_colours),
        against("shape colour by vit_shapes", colours, [name[0] for name in named], wanted_colours),
        against("position", position, [sight.position for sight in sights],
                [scene.position for scene in scenes]),
        against("shape by geometry", shape, [sight.shape for sight in sights], wanted_shapes),
        against("shape by vit_shapes", shape, [name[1] for name in named], wanted_shapes),
    ]  # fmt: skip


def classify(classifier: ImageClassifier, pictures: Sequence[Pixels]) -> list[str]:
    images = [classifier.preprocess(Image.fromarray(picture)) for picture in pictures]
    batches = torch.split(torch.stack(images), 64)
    logits = torch.cat([classifier.logits(batch) for batch in batches])
    return [classifier.labels[i] for i in logits.argmax(dim=-1).tolist()]


def measure_vit(directory: Path) -> list[Measurement]:
    """Classify fresh renderings, also those that a pixel judge is checked on."""
    rng = random.Random(SEED)
    classifier = ImageClassifier.from_preset(directory)
    scenes = draw_scenes(NUM_RENDERINGS, rng, list(all_scenes()))
    pictures = [np.array(render(scene, rng, RENDER_SIDE)) for scene in tqdm(scenes, desc="render")]
    named = classify(classifier, pictures)
    pairs = list(zip(scenes, named, strict=True))
    sights = [see(picture).shape for picture in tqdm(pictures, desc="geometry")]
    return [
        share("top-1", 0.99, [scene.label == label for scene, label in pairs]),
        share("the geometric check on the same", 0.995,
              [scene.shape == shape for scene, shape in zip(scenes, sights, strict=True)]),
    ]  # fmt: skip


def measure_f_net(directory: Path) -> list[Measurement]:
    """Find the other sentence for a scene among those of 1,000 scenes."""
    rng = random.Random(SEED)
    embedder = TextEmbedder.from_preset(directory)
    scenes = rng.sample(list(all_scenes()), NUM_CAPTIONS)
    spoken = [_two_sentences(scene, rng) for scene in scenes]
    asked, stored = (_embed(embedder, list(side)) for side in zip(*spoken, strict=True))
    found = (asked @ stored.T).argmax(dim=-1).tolist()
    return [share("paraphrase found", 0.98, [i == row for row, i in enumerate(found)])]


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


MEASURES: dict[str, Callable[[Path], list[Measurement]]] = {
    "flux_shapes": measure_flux,
    "vit_shapes": measure_vit,
    "f_net_shapes": measure_f_net,
}


def machine() -> dict[str, str | int]:
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in cpu_lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(MEASURES))
    parser.add_argument("--preset", type=Path, help="a candidate's directory; else the bundled one")
    parser.add_argument(
        "--output", type=Path, help="the JSON file; else training/results/NAME.json"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.monotonic()
    directory = arguments.preset or Path(get_preset(arguments.name).handle)
    measured = MEASURES[arguments.name](directory)
    seconds = round(time.monotonic() - started, 1)
    logger.info("%s", "\n".join(measurement.line for measurement in measured))
    output = arguments.output or RESULTS / f"{arguments.name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "preset": arguments.name,
        "seconds": seconds,
        "machine": machine(),
        "measurements": [asdict(measurement) for measurement in measured],
    }
    output.write_text(json.dumps(result, indent=2) + "\n")
    logger.info("measured preset=%s seconds=%.1f output=%s", directory, seconds, output)


if __name__ == "__main__":
    main()
