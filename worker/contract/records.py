"""The truth about every job: one Redis hash each, changed only by compare-and-set.

queued ─► running ─► succeeded | failed | canceled | expired; running ─► queued when a worker is
lost. The attempt is the fencing token: who holds an older one can change nothing any more, and a
final state never changes. RQ carries the id (`enqueue`); whatever RQ believes, the record is right.
Free of torch; knows nothing of HTTP and models.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from redis import Redis
from redis.client import Pipeline
from rq.intermediate_queue import IntermediateQueue
from rq.queue import Queue
from rq.serializers import JSONSerializer

from worker.contract import record_scripts
from worker.contract.jobs import (
    JOB,
    RESULT,
    ClassifyJob,
    ClassifyResult,
    EmbeddingsJob,
    EmbeddingsResult,
    Failure,
    ImageJob,
    ImageResult,
    JobState,
    Task,
)

ENTRY_POINT = "worker.tasks.run"  # the one function name that RQ may carry
FINISHED_CHANNEL = record_scripts.FINISHED_CHANNEL  # every final state publishes the job's id here
RESULT_TTL_S = 86_400.0  # a day: as long as an idempotency key of the API

# RQ's own bookkeeping of ended jobs, for `rq info` only; the record is the truth.
RQ_RESULT_TTL_S = 600
RQ_FAILURE_TTL_S = 86_400
_MAX_LOOKED_AT = 1000  # entries, for one of our own among those of other workers
_RQ_NO_TIMEOUT = -1  # deadlines are ours: RQ's would raise in the middle of anything

AnyJob: TypeAlias = ImageJob | ClassifyJob | EmbeddingsJob
AnyResult: TypeAlias = ImageResult | ClassifyResult | EmbeddingsResult
EndedEarly: TypeAlias = Literal[JobState.CANCELED, JobState.EXPIRED]
Outcome: TypeAlias = AnyResult | Failure | EndedEarly
Scalar: TypeAlias = bytes | bytearray | memoryview | str | int | float  # what Redis stores


@dataclass(frozen=True, slots=True)
class Record:
    """A snapshot. The images of a classify job are gone once its state is final."""

    job: AnyJob
    state: JobState
    attempt: int  # 0 before the first run
    step: int
    num_steps: int
    is_cancel_requested: bool
    started_at: float | None
    finished_at: float | None
    result: AnyResult | None
    failure: Failure | None
    worker: str | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def task(self) -> Task:
        return self.job.task


def record_key(job_id: str) -> str:
    return f"{record_scripts.RECORD_PREFIX}{job_id}"


def running_key(task: Task) -> str:
    return f"{record_scripts.RUNNING_PREFIX}{task}"


def queue_name(task: Task) -> str:
    return f"{record_scripts.QUEUE_NAME_PREFIX}{task}"


def queue_key(task: Task) -> str:
    """The Redis list of the ids that wait: its length is the depth of the queue."""
    return f"{Queue.redis_queue_namespace_prefix}{queue_name(task)}"


def parse_record(mapping: Mapping[str, str]) -> Record | None:
    """Read what `HGETALL` gave, decoded; None where there is no such record."""
    if not mapping:
        return None
    job = JOB.validate_json(mapping["job"])
    if isinstance(job, ClassifyJob) and "images" in mapping:
        job = job.model_copy(update={"images": tuple(json.loads(mapping["images"]))})
    result, failure = mapping.get("result"), mapping.get("failure")
    return Record(
        job=job,
        state=JobState(mapping["state"]),
        attempt=int(mapping["attempt"]),
        step=int(mapping["step"]),
        num_steps=int(mapping["num_steps"]),
        is_cancel_requested=mapping["cancel_requested"] == "1",
        started_at=_optional_float(mapping.get("started_at")),
        finished_at=_optional_float(mapping.get("finished_at")),
        result=None if result is None else RESULT.validate_json(result),
        failure=None if failure is None else Failure.model_validate_json(failure),
        worker=mapping.get("worker"),
    )


class Records:
    """The records on one server; for workers, the reaper and the API's submit."""

    def __init__(self, redis: Redis, result_ttl_s: float = RESULT_TTL_S) -> None:
        self._redis = redis
        self._ttl_s = int(result_ttl_s)
        self._take = redis.register_script(record_scripts.TAKE)
        self._renew = redis.register_script(record_scripts.RENEW)
        self._progress = redis.register_script(record_scripts.PROGRESS)
        self._finish = redis.register_script(record_scripts.FINISH)
        self._cancel = redis.register_script(record_scripts.CANCEL)
        self._release = redis.register_script(record_scripts.RELEASE)
        self._unstick = redis.register_script(record_scripts.UNSTICK)
        self._select = redis.register_script(record_scripts.SELECT)

    def create(self, job: AnyJob, pipeline: Pipeline) -> None:
        """Write the queued record into the transaction that also queues the job."""
        pipeline.hset(record_key(job.id), mapping=_fields(job))

    def get(self, job_id: str) -> Record | None:
        return parse_record(_decode(self._redis.hgetall(record_key(job_id)).items()))

    def take(self, job_ids: Sequence[str], worker: str, lease_s: float) -> list[Record | None]:
        """Start all of these in one round trip: queued to running, with the next attempt.

        None for a job that is not queued: canceled, gone, expired just now, or taken by another.
        """
        replies = self._take(args=[worker, lease_s, self._ttl_s, *job_ids])
        return [None if flat is None else parse_record(_pairs(flat)) for flat in replies]

    def start(self, job_id: str, worker: str, lease_s: float) -> int | None:
        """Take one job and return its attempt, the fencing token."""
        [record] = self.take([job_id], worker, lease_s)
        return None if record is None else record.attempt

    def renew(self, leases: Mapping[str, int], lease_s: float) -> None:
        """Lengthen the leases, given as job id to attempt; a stale one stays as it is."""
        if leases:
            self._renew(args=[lease_s, *(part for lease in leases.items() for part in lease)])

    def progress(self, job_id: str, attempt: int, step: int, num_steps: int) -> bool:
        """Note the step just done; False if the attempt is stale, so that work can stop."""
        return bool(self._progress(args=[job_id, attempt, step, num_steps]))

    def is_cancel_requested(self, job_id: str) -> bool:
        return self._redis.hget(record_key(job_id), "cancel_requested") in (b"1", "1")

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> bool:
        """Make the outcome final and wake who waits; False, changing nothing, if it is stale."""
        final = _final_fields(outcome)
        return bool(self._finish(args=[job_id, attempt, self._ttl_s, *final]))

    def cancel(self, job_id: str) -> Record | None:
        """End a queued job at once, ask a running one to stop; final ones stay as they are."""
        self._cancel(args=[job_id, self._ttl_s])
        return self.get(job_id)

    def release(self, job_id: str, attempt: int) -> bool:
        """Put a running job back at the front of its queue; False if the attempt is stale.

        A job whose cancel was requested is canceled instead.
        """
        return bool(self._release(args=[job_id, attempt, self._ttl_s]))

    def unstick(self, job_id: str) -> bool:
        """Put back a queued job whose entry a dying worker left outside the queue."""
        return bool(self._unstick(args=[job_id]))

    def select(self, task: Task, models: Collection[str]) -> tuple[str | None, list[str]]:
        """Move the first entry of one of these models from RQ's list to its intermediate one.

        Entries past their deadline and those without a record count as ours: somebody has to end
        them. Returns the id, if there is one, and the other models that stand before it.
        """
        queue = queue_key(task)
        lists = (queue, IntermediateQueue.get_intermediate_queue_key(queue))
        job_id, others = self._select(args=[*lists, _MAX_LOOKED_AT, *models])
        return None if job_id is None else as_text(job_id), [as_text(model) for model in others]

    def await_entry(self, task: Task, timeout_s: float) -> str | None:
        """Move the first entry that comes likewise, whatever its model; None when time is up."""
        queue = queue_key(task)
        intermediate = IntermediateQueue.get_intermediate_queue_key(queue)
        job_id = self._redis.blmove(queue, intermediate, timeout_s)  # type: ignore[arg-type]  # seconds may be a float
        return None if job_id is None else as_text(job_id)

    def model_of(self, job_id: str) -> str | None:
        model = self._redis.hget(record_key(job_id), "model")
        return None if model is None else as_text(model)

    def are_over(self, job_ids: Sequence[str]) -> dict[str, bool]:
        """Whether each will run no more: it is final, or past its deadline.

        Those without a record are left out.
        """
        if not job_ids:
            return {}
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(record_key(job_id), "state", "deadline_at")
            found = pipeline.execute()
        now = self.now()
        return {
            job_id: JobState(as_text(state)).is_final
            or (deadline_at is not None and float(deadline_at) <= now)
            for job_id, (state, deadline_at) in zip(job_ids, found, strict=True)
            if state is not None
        }

    def overdue(self, task: Task, now: float) -> list[str]:
        """The running jobs whose lease has run out."""
        members = self._redis.zrangebyscore(running_key(task), "-inf", now)
        return [as_text(member) for member in cast(list[bytes | str], members)]

    def now(self) -> float:
        """The server's clock, which dates every lease."""
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def enqueue(redis: Redis, job: AnyJob, records: Records) -> None:
    """Write the record and its queue entry in one transaction: both exist or neither does."""
    queue = Queue(queue_name(job.task), connection=redis, serializer=JSONSerializer)
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.multi()  # or RQ starts the transaction itself, and refuses what came before
        records.create(job, pipeline)
        queue.enqueue_call(
            ENTRY_POINT,
            args=(job.id,),
            job_id=job.id,
            timeout=_RQ_NO_TIMEOUT,
            result_ttl=RQ_RESULT_TTL_S,
            failure_ttl=RQ_FAILURE_TTL_S,
            description=f"{job.task} {job.id}",
            pipeline=pipeline,
        )
        pipeline.execute()


def _fields(job: AnyJob) -> dict[Scalar, Scalar]:
    fields: dict[Scalar, Scalar] = {
        "task": job.task,
        "model": job.model,
        "state": JobState.QUEUED,
        "attempt": 0,
        "created_at": job.created_at,
        "step": 0,
        "num_steps": job.num_steps if isinstance(job, ImageJob) else 0,
        "cancel_requested": 0,
    }
    if isinstance(job, ClassifyJob):
        # apart from the job, so that a final record keeps the job without its megabytes
        fields["images"] = json.dumps(job.images)
        job = job.model_copy(update={"images": ()})
    if job.deadline_at is not None:
        fields["deadline_at"] = job.deadline_at
    return fields | {"job": job.model_dump_json()}


def _final_fields(outcome: Outcome) -> list[str]:
    """The state, and where the outcome has more to say, the field and its JSON."""
    if isinstance(outcome, JobState):
        return [outcome.value]
    if isinstance(outcome, Failure):
        return [JobState.FAILED.value, "failure", outcome.model_dump_json()]
    return [JobState.SUCCEEDED.value, "result", outcome.model_dump_json()]


def _pairs(flat: Sequence[bytes | str]) -> dict[str, str]:
    return _decode(zip(flat[::2], flat[1::2], strict=True))


def _decode(items: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in items}


def as_text(value: bytes | str) -> str:
    """Read what Redis answers, whether or not its client decodes."""
    return value.decode() if isinstance(value, bytes) else value


def _optional_float(text: str | None) -> float | None:
    return None if text is None else float(text)
