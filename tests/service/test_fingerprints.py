"""Which jobs count as equal."""

import pytest

from service.fingerprints import fingerprint_of
from tests.worker.jobs import classify_job, embeddings_job, image_job
from worker.contract.jobs import ImageJob, LoraScale, NegativePrompt, StartImage
from worker.contract.record import AnyJob

DIGEST = "5e" * 32
START = StartImage(file_name="job_1.start", strength=0.5)


def fingerprint(job: AnyJob, digest: str = DIGEST, start_image: bytes = b"") -> str:
    return fingerprint_of(job, digest, start_image)


def varied(job: AnyJob, *changes: dict[str, object]) -> list[AnyJob]:
    return [job.model_copy(update=each) for each in changes]


def painted(**fields: object) -> ImageJob:
    return image_job().model_copy(update=fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "job_2"},
        {"created_at": 1.0},
        {"deadline_at": 9e9},
        {"caller": "another"},
        {"priority": "high"},
        {"end_user": "5e"},
    ],
    ids=str,
)
def test_who_asks_when_and_how_urgently_makes_no_difference(fields: dict[str, object]) -> None:
    jobs: list[AnyJob] = [image_job(), classify_job("YQ=="), embeddings_job("a")]
    for job in jobs:
        assert fingerprint(job.model_copy(update=fields)) == fingerprint(job)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "another"},
        {"prompt": "a blue circle"},
        {"seeds": (7, 8)},
        {"width": 96, "height": 64},
        {"num_steps": 5},
        {"guidance_scale": 1.0},
        {"loras": (LoraScale(name="ink", scale=1.0),)},
        {"negative": NegativePrompt(prompt="red", true_cfg_scale=2.0)},
        {"start": START},
    ],
    ids=str,
)
def test_whatever_an_image_follows_from_makes_a_difference(fields: dict[str, object]) -> None:
    assert fingerprint(painted(**fields)) != fingerprint(painted())


def test_a_start_image_counts_by_its_content() -> None:
    renamed = START.model_copy(update={"file_name": "job_2.start"})
    first = fingerprint(painted(start=START), start_image=b"a")
    assert fingerprint(painted(start=renamed), start_image=b"a") == first
    assert fingerprint(painted(start=START), start_image=b"b") != first


def test_whatever_rows_follow_from_makes_a_difference() -> None:
    classified = [
        classify_job("YQ=="),
        classify_job("Yg=="),
        classify_job("YQ==", "Yg=="),
        classify_job("YQ==Yg=="),
        classify_job("YQ==", top_k=1),
        *varied(
            classify_job("YQ=="),
            {"function": "sigmoid"},
            {"labels": ("red",)},
            {"includes_scores": True},
        ),
    ]
    embedded = [
        embeddings_job("a"),
        embeddings_job("a", "b"),
        embeddings_job("b", "a"),
        *varied(
            embeddings_job("a"),
            {"texts": ((1,),)},
            {"texts": ("1",)},
            {"pooling": "cls"},
            {"normalizes": False},
            {"truncates": True},
            {"truncates": True, "truncation_side": "left"},
        ),
    ]
    jobs: list[AnyJob] = [*classified, *embedded]
    assert len({fingerprint(job) for job in jobs}) == len(jobs) == 17


def test_another_model_of_the_same_name_makes_a_difference() -> None:
    job = embeddings_job("a")
    assert fingerprint(job, digest="0d" * 32) != fingerprint(job)
