"""The jobs during which a worker or an API is killed, and what is to come of each.

For each task one job alone and a batch; a job of several images, start images and previews; inputs
that are at fault beside others; equal jobs that share a run, also where the first is canceled or
expires; a worker that starts, and one that is asked to stop. Knows nothing of processes.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import httpx

from tests.worker.jobs import classify_job, embeddings_job, image, image_job
from worker.contract.image_files import ImageFiles, start_name
from worker.contract.jobs import ImageJob, JobState, StartImage, Task
from worker.contract.record import AnyJob
from worker.contract.submission import Reuse

_ASYNC = {"prefer": "respond-async"}
EXPIRES_AFTER_S = 1.0
Meanwhile: TypeAlias = Literal["drain", "cancel", "expire"]
BAD_IMAGE = base64.b64encode(b"no image").decode()


@dataclass(frozen=True, slots=True)
class Planned:
    """A job, and its final state whoever is killed meanwhile."""

    job: AnyJob
    state: JobState = JobState.SUCCEEDED
    reuse: Reuse | None = None


@dataclass(frozen=True, slots=True)
class WorkerScene:
    """`is_from_birth`: the jobs wait before the worker starts, and all that it does counts.

    `meanwhile`: what happens while the first job waits for the file `release`: the worker is asked
    to stop, the job is canceled, or its deadline passes.
    """

    name: str
    task: Task
    plan: Callable[[ImageFiles, Path], Sequence[Planned]]
    is_from_birth: bool = False
    meanwhile: Meanwhile | None = None


@dataclass(frozen=True, slots=True)
class ApiScene:
    """A request to the API that is killed meanwhile; what it was promised comes true."""

    name: str
    task: Task
    send: Callable[[str], httpx.Response]  # to this address
    states: tuple[JobState, ...] = (JobState.SUCCEEDED,)


Scene: TypeAlias = WorkerScene | ApiScene


def _image_alone(files: ImageFiles, _: Path) -> list[Planned]:
    return [Planned(_with_start(image_job(num_steps=3), files))]


def _images_together(files: ImageFiles, _: Path) -> list[Planned]:
    with_previews = image_job("two previews", seeds=(21,), num_steps=3)
    return [
        Planned(image_job("three images", seeds=(1, 2, 3), num_steps=2)),
        Planned(_with_start(image_job("one with a start", seeds=(11,), num_steps=3), files)),
        Planned(with_previews.model_copy(update={"preview_steps": (1, 2)})),
        Planned(image_job("cannot be decoded", seeds=(13,), num_steps=2), JobState.FAILED),
    ]


def _images_held(files: ImageFiles, release: Path) -> list[Planned]:
    held = Planned(image_job(f"wait {release}", seeds=(31, 32), num_steps=3))
    return [held, *_images_together(files, release)]


def _images_shared(_files: ImageFiles, _release: Path) -> list[Planned]:
    """Three equal jobs, of which one runs."""
    return _sharing([image_job("shared", seeds=(41, 42), num_steps=3) for _ in range(3)])


def _images_canceled_by_the_first(_files: ImageFiles, release: Path) -> list[Planned]:
    """The run goes on for the others."""
    jobs = [image_job(f"wait {release}", seeds=(41, 42), num_steps=3) for _ in range(3)]
    return _sharing(jobs, JobState.CANCELED)


def _images_too_late_for_the_first(_files: ImageFiles, release: Path) -> list[Planned]:
    """The others, which have more time, run for themselves."""
    job, now = image_job(f"wait {release}", seeds=(41, 42), num_steps=3), time.time()
    first = job.model_copy(update={"deadline_at": now + EXPIRES_AFTER_S})
    # half of their time is over: they share a run that may be cut off soon
    others = [
        image_job(job.prompt, seeds=job.seeds, num_steps=3).model_copy(
            update={"created_at": now - 600.0, "deadline_at": now + 600.0}
        )
        for _ in range(2)
    ]
    return _sharing([first, *others], JobState.EXPIRED)


def _sharing(jobs: Sequence[ImageJob], first: JobState = JobState.SUCCEEDED) -> list[Planned]:
    reuse = Reuse("equal", "a card", reads_cache=False, joins_runs=True)
    states = [first, *(JobState.SUCCEEDED for _ in jobs[1:])]
    return [Planned(job, state, reuse) for job, state in zip(jobs, states, strict=True)]


def _with_start(job: ImageJob, files: ImageFiles) -> ImageJob:
    files.store_start(base64.b64decode(image()), job.id)
    start = StartImage(file_name=start_name(job.id), strength=1.0)
    return job.model_copy(update={"start": start})


def _classification_alone(_files: ImageFiles, _release: Path) -> list[Planned]:
    return [Planned(classify_job(image()))]


def _classifications_together(_files: ImageFiles, _release: Path) -> list[Planned]:
    return [
        Planned(classify_job(image((10, 250, 10)))),
        Planned(classify_job(image(), image((10, 10, 250)))),
        Planned(classify_job(BAD_IMAGE), JobState.FAILED),
        Planned(classify_job(image(width=9))),
    ]


def _embedding_alone(_files: ImageFiles, _release: Path) -> list[Planned]:
    return [Planned(embeddings_job("a text"))]


def _embeddings_together(_files: ImageFiles, _release: Path) -> list[Planned]:
    return [
        Planned(embeddings_job("one text")),
        Planned(embeddings_job("a text", "and another")),
        Planned(embeddings_job("far too long " * 4), JobState.FAILED),
        Planned(embeddings_job("five words make longer rows")),
    ]


def _embeddings_held(files: ImageFiles, release: Path) -> list[Planned]:
    return [Planned(embeddings_job(f"wait {release}")), *_embeddings_together(files, release)]


def _embed(url: str) -> httpx.Response:
    return _post(f"{url}/v1/embeddings", {"input": ["a text"]})


def _embed_later(url: str) -> httpx.Response:
    return _post(f"{url}/v1/embeddings", {"input": ["a text"]}, _ASYNC)


def _paint_from_image(url: str) -> httpx.Response:
    body = {"prompt": "from an image", "image": image(), "size": "64x64", "seed": 20}
    return _post(f"{url}/v1/images/generations", body)


def _cancel(url: str) -> httpx.Response:
    body = {"prompt": "canceled", "size": "64x64", "seed": 20}
    answer = _post(f"{url}/v1/images/generations", body, _ASYNC)
    return _post(f"{url}/v1/jobs/{answer.json()['id']}/cancel")


def _post(
    url: str, body: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    return httpx.post(url, json=body, headers=headers, timeout=20, trust_env=False)


SCENES: Mapping[str, Scene] = {
    scene.name: scene
    for scene in (
        WorkerScene("images-alone", Task.IMAGES, _image_alone),
        WorkerScene("images-batch", Task.IMAGES, _images_together),
        WorkerScene("images-shared", Task.IMAGES, _images_shared),
        WorkerScene("classify-alone", Task.CLASSIFY, _classification_alone),
        WorkerScene("classify-batch", Task.CLASSIFY, _classifications_together),
        WorkerScene("embeddings-alone", Task.EMBEDDINGS, _embedding_alone),
        WorkerScene("embeddings-batch", Task.EMBEDDINGS, _embeddings_together),
        WorkerScene("images-from-birth", Task.IMAGES, _image_alone, is_from_birth=True),
        WorkerScene("images-drained", Task.IMAGES, _images_held, meanwhile="drain"),
        WorkerScene("embeddings-drained", Task.EMBEDDINGS, _embeddings_held, meanwhile="drain"),
        WorkerScene(
            "leader-canceled", Task.IMAGES, _images_canceled_by_the_first, meanwhile="cancel"
        ),
        WorkerScene(
            "leader-expired", Task.IMAGES, _images_too_late_for_the_first, meanwhile="expire"
        ),
        ApiScene("api-waits", Task.EMBEDDINGS, _embed),
        ApiScene("api-accepts", Task.EMBEDDINGS, _embed_later),
        ApiScene("api-stores-a-start", Task.IMAGES, _paint_from_image),
        ApiScene("api-cancels", Task.IMAGES, _cancel, (JobState.SUCCEEDED, JobState.CANCELED)),
    )
}
