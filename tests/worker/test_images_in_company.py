"""An image of the bundled preset is the same alone and among others, whatever becomes of those."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from redis import Redis

from models.flux.text_to_image import TextToImage
from models.layers.onednn import multiplies
from models.load import load_pipeline
from tests.cards import SHAPES_LIMITS
from tests.models.flux.lora_oracle import write
from tests.models.flux.lora_styles import PEFT, Sizes, random_adapters
from tests.worker.studio import MODEL, Studio
from worker.contract.jobs import (
    ImageJob,
    JobState,
    LoraScale,
    NegativePrompt,
    StartImage,
    new_job_id,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LORAS = ("ink", "oil")
LIMITS = SHAPES_LIMITS.model_copy(update={"loras": LORAS})
MOST_LEVELS = 1  # of 255: sums of a batch are in another order
START = "job_1"


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def pipeline(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextToImage:
    """The bundled preset by products of each kind, and two LoRAs that change its images visibly."""
    if not multiplies(request.param):
        pytest.skip(f"this processor has no products in {request.param}")
    made = load_pipeline(MODEL)
    assert isinstance(made, TextToImage)
    if request.param is torch.bfloat16:  # as workers do, before they attach LoRAs
        made.pack(request.param)
    sizes = {"transformer_blocks.0.attn.to_q": Sizes(2, 192, 192)}
    for seed, name in enumerate(LORAS):
        file = tmp_path_factory.mktemp("loras") / f"{name}.safetensors"
        made.load_lora(write(random_adapters(sizes, PEFT, seed), file), name, scale=0.0)
    return made


@pytest.fixture(params=[False, True], ids=["between-steps", "beside"])
def studio(
    request: pytest.FixtureRequest, redis: Redis, tmp_path: Path, pipeline: TextToImage
) -> Studio:
    limits = LIMITS.model_copy(update={"overlaps": request.param})
    made = Studio(redis, tmp_path, pipeline, limits)
    made.let_pay(16)
    made.files.store_start(a_picture(), START)
    return made


def a_picture() -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").save(buffer, "PNG")
    return buffer.getvalue()


def job(
    prompt: str = "a red circle", num_steps: int = 5, seed: int = 7, **fields: object
) -> ImageJob:
    of_all = {"id": new_job_id(), "model": MODEL, "created_at": time.time(), "quality": "medium"}
    given = {"width": 128, "height": 128, "guidance_scale": 2.0, "seeds": (seed,), **fields}
    return ImageJob.model_validate({**of_all, "prompt": prompt, "num_steps": num_steps, **given})


def eight_jobs() -> dict[str, ImageJob]:
    """One patch count, and all else as different as can be."""
    return {
        "plain": job(num_steps=8),
        "guided": job("a blue star", 4, guidance_scale=5.0),
        "wide": job("a green ring", 5, width=256, height=64),
        "steered": job("a circle", 6, negative=NegativePrompt(prompt="red", true_cfg_scale=3.0)),
        "inked": job("a star", 5, loras=(LoraScale(name="ink", scale=2.0),)),
        "oiled": job("a star", 6, loras=(LoraScale(name="oil", scale=-0.7),)),
        "mixed": job("a ring", 3, loras=tuple(LoraScale(name=n, scale=0.5) for n in LORAS)),
        "begun": job("a cross", 6, start=StartImage(file_name=f"{START}.start", strength=0.6)),
    }


def alone(studio: Studio, given: ImageJob) -> np.ndarray:
    again = given.model_copy(update={"id": new_job_id()})
    studio.paint(again)
    return studio.pixels(again)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(one - other).max() <= MOST_LEVELS


def test_an_image_is_the_same_alone_and_in_company_of_eight(studio: Studio) -> None:
    jobs = eight_jobs()
    late = job("a purple star", 3, seed=9)
    studio.add(*jobs.values())
    studio.advance(2)
    studio.add(late)
    studio.run()
    assert studio.ended.index(late.id) < studio.ended.index(jobs["plain"].id)
    for given in (*jobs.values(), late):
        assert_same(studio.pixels(given), alone(studio, given))


def test_what_ends_one_of_eight_leaves_the_others_as_they_were(studio: Studio) -> None:
    jobs = eight_jobs()
    studio.add(*jobs.values())
    studio.advance(2)
    studio.records.cancel(jobs["steered"].id)
    stale = studio.records.get(jobs["inked"].id)
    assert stale is not None
    studio.records.release({stale.id: stale.attempt})
    [run] = [run for run in studio.work._runs if run.record.id == jobs["begun"].id]
    run.job = run.job.model_copy(update={"deadline_at": time.time()})
    studio.advance(1)
    left = {run.record.id for run in studio.work._runs}
    assert left == {jobs[n].id for n in ("plain", "guided", "wide", "oiled", "mixed")}
    studio.run()
    assert studio.outcomes[jobs["steered"].id] is JobState.CANCELED
    assert studio.outcomes[jobs["begun"].id] is JobState.EXPIRED
    assert jobs["inked"].id not in studio.outcomes
    for name in ("plain", "guided", "wide", "oiled", "mixed"):
        assert_same(studio.pixels(jobs[name]), alone(studio, jobs[name]))


def test_loras_change_the_images(studio: Studio) -> None:
    inked = eight_jobs()["inked"]
    plain = inked.model_copy(update={"id": new_job_id(), "loras": ()})
    studio.paint(inked, plain)
    assert np.abs(studio.pixels(inked) - studio.pixels(plain)).mean() > 2
