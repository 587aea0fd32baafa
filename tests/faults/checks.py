"""What must hold once all jobs are over, whoever was killed: one result each, and nothing left.

Each check says what is wrong as a line of text; none means that all is well. Knows nothing of
processes.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from PIL import Image
from redis import Redis

from service.file_janitor import FileJanitor
from service.metrics import Metrics
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import (
    ClassifyJob,
    ClassifyResult,
    EmbeddingsJob,
    EmbeddingsResult,
    ImageJob,
    ImageResult,
    JobState,
    Task,
)
from worker.contract.record import Record, as_text
from worker.contract.record_scripts import QUARANTINED_KEY
from worker.contract.records import RESULT_TTL_S, Records
from worker.contract.script_prelude import EVENTS_PREFIX

# What stays although it has no end: names, RQ's registries, which RQ itself trims, and our list of
# jobs that were given up. All else either ends by itself, or belongs to a job that is not over.
_LASTING_KEYS = frozenset(
    {
        "rq:queues",
        "rq:workers",
        "triptych:url_secret",
        "triptych:workers",
        *(f"rq:workers:triptych-{task}" for task in Task),
        *(f"rq:{kind}:triptych-{task}" for kind in ("finished", "failed") for task in Task),
        QUARANTINED_KEY,
    }
)
_Entries: TypeAlias = list[tuple[bytes, dict[bytes, bytes]]]
LEAST_KEPT_S = 55.0  # records and events of what comes by the thousand, from the end of a job
_LATER_S = 120.0  # when nobody can be writing any more what was not finished


def job_faults(
    redis: Redis, images: Path, job_id: str, states: Sequence[JobState]
) -> Iterator[str]:
    """Whether the job ended once, in one of these states, and what it promises is there."""
    record = Records(redis).get(job_id)
    if record is None:
        yield f"{job_id}: lost, there is no record"
        return
    if record.state not in states:
        yield f"{job_id}: is {record.state} ({record.failure}), not {' or '.join(states)}"
    yield from _event_faults(redis, record)
    if record.state is JobState.SUCCEEDED:
        yield from _result_faults(record, images)


def queue_faults(redis: Redis) -> Iterator[str]:
    """Leases, places in queues, entries in RQ's books and whatever else would stay for ever."""
    for key in _keys(redis):
        if redis.ttl(key) == -1 and key not in _LASTING_KEYS:
            yield f"{key} is left without an end: {_content(redis, key)}"


def file_faults(redis: Redis, images: Path, records: Sequence[Record]) -> Iterator[str]:
    """Files that belong to no result, after the janitor's round."""
    janitor = FileJanitor(redis, Records(redis), ImageFiles(images), Metrics(), RESULT_TTL_S)
    janitor.sweep(time.time() + _LATER_S)
    wanted = {name for record in records for name in _files_of(record)}
    for path in images.rglob("*"):
        if path.is_file() and path.name not in wanted:
            yield f"{path.relative_to(images)} is left"


def _keys(redis: Redis) -> list[str]:
    return sorted(as_text(key) for key in redis.scan_iter(count=1000))


def _content(redis: Redis, key: str) -> object:
    match as_text(redis.type(key)):
        case "list":
            return redis.lrange(key, 0, 9)
        case "zset":
            return redis.zrange(key, 0, 9)
        case "set":
            return redis.smembers(key)
        case "hash":
            return redis.hgetall(key)
        case kind:
            return kind


def _event_faults(redis: Redis, record: Record) -> Iterator[str]:
    """A follower sees one end, and nothing after it."""
    events = cast(_Entries, redis.xrange(f"{EVENTS_PREFIX}{record.id}"))
    kinds = [fields[b"type"].decode() for _, fields in events]
    if not events and (_is_answered(record) or _are_events_over(record)):
        return
    if kinds.count("finished") != 1 or kinds[-1] != "finished":
        yield f"{record.id}: its events are {kinds}, and one end at their end is allowed"
    if kinds.count("queued") < 1:
        yield f"{record.id}: its events {kinds} do not begin with queued"


def _is_answered(record: Record) -> bool:
    """Whether it was over when it came, with the result of an equal job."""
    return record.state is JobState.SUCCEEDED and record.attempt == 0


def _are_events_over(record: Record) -> bool:
    return record.finished_at is not None and time.time() - record.finished_at > LEAST_KEPT_S


def _files_of(record: Record) -> list[str]:
    if not isinstance(record.result, ImageResult):
        return []
    return [image.file_name for image in record.result.images]


def _result_faults(record: Record, images: Path) -> Iterator[str]:
    job, result = record.job, record.result
    if isinstance(job, ImageJob) and isinstance(result, ImageResult):
        yield from _image_faults(job, result, images)
    elif isinstance(job, ClassifyJob) and isinstance(result, ClassifyResult):
        if not result.predictions:
            yield f"{job.id}: no predictions"
    elif isinstance(job, EmbeddingsJob) and isinstance(result, EmbeddingsResult):
        if len(result.embeddings) != record.num_rows:
            yield f"{job.id}: {len(result.embeddings)} embeddings for {record.num_rows} texts"
    else:
        yield f"{job.id}: succeeded with {result!r}"


def _image_faults(job: ImageJob, result: ImageResult, images: Path) -> Iterator[str]:
    if [image.seed for image in result.images] != list(job.seeds):
        yield f"{job.id}: images of other seeds than {job.seeds}"
    for image in result.images:
        try:
            with Image.open(images / image.file_name) as file:
                pixels = np.asarray(file)
        except OSError as error:
            yield f"{image.file_name} cannot be read: {error}"
            continue
        if not (pixels == image.seed).all():  # the tiny pipeline paints its seed
            yield f"{image.file_name} shows another seed's image"
