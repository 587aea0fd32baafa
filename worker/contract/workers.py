"""What each living worker says of itself and its models, renewed by its heartbeat, gone soon after.

The API's catalogue, readiness and metrics read this. Free of torch; knows nothing of jobs.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter
from redis import Redis

from worker.contract import model_cards
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.contract.record import Scalar, as_text
from worker.contract.script_prelude import ALLOW_OOM, READING, WORKER_PREFIX

STATUS_TTL_S = 15  # five heartbeats of 3 s: one lost packet does not kill a worker
_NAMES_KEY = "triptych:workers"
# ARGV: name, ttl_s, then fields and values in turn. On a server that is full as well: a worker that
# could not say that it lives would be taken for dead.
_WRITE = (
    ALLOW_OOM
    + f"""
local key = '{WORKER_PREFIX}' .. ARGV[1]
redis.call('HSET', key, unpack(ARGV, 3))
redis.call('EXPIRE', key, ARGV[2])
redis.call('SADD', '{_NAMES_KEY}', ARGV[1])
"""
)

# Returns for each name its fields and values in turn. One command however many workers there are.
READ = (
    READING
    + f"""
local found = {{}}
for i, name in ipairs(redis.call('SMEMBERS', '{_NAMES_KEY}')) do
  found[i] = {{name, redis.call('HGETALL', '{WORKER_PREFIX}' .. name)}}
end
return found
"""
)

Reply: TypeAlias = Sequence[tuple[bytes | str, Sequence[bytes | str]]]  # of `READ`

logger = logging.getLogger(__name__)


class WorkerState(StrEnum):
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"

    @property
    def is_warm(self) -> bool:
        """Whether the worker takes jobs now or next."""
        return self in (WorkerState.IDLE, WorkerState.BUSY)


class ModelState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"  # it could not be loaded; it is tried again


class ServedModel(BaseModel):
    """One model of a worker's list, in its order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    aliases: tuple[str, ...] = ()
    state: ModelState
    is_resident: bool = False  # on the device now; one that is ready may come back for its jobs
    progress: str | None = None  # of loading, such as "downloading 3.1 of 23.8 GB"
    reason: str | None = None  # why it could not be loaded
    card: str | None = None  # the digest of its card; None until it is ready
    results_digest: str | None = None  # the card's
    load_s: float | None = None  # how long loading took


_MODELS: TypeAdapter[tuple[ServedModel, ...]] = TypeAdapter(tuple[ServedModel, ...])


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Times are Unix seconds."""

    name: str
    task: Task
    state: WorkerState
    pid: int
    host: str
    device: str
    models: tuple[ServedModel, ...]  # the default first
    started_at: float
    heartbeat_at: float


def worker_key(name: str) -> str:
    return f"{WORKER_PREFIX}{name}"


def write(redis: Redis, status: WorkerStatus, cards: Collection[ModelCard] = ()) -> None:
    """Write the status, after the cards that it names: new ones, and those that Redis lost."""
    model_cards.keep(redis, cards, STATUS_TTL_S)
    fields: dict[Scalar, Scalar] = {
        "name": status.name,
        "task": status.task,
        "state": status.state,
        "pid": status.pid,
        "host": status.host,
        "device": status.device,
        "models": _MODELS.dump_json(status.models),
        "started_at": status.started_at,
        "heartbeat_at": status.heartbeat_at,
    }
    args = [status.name, STATUS_TTL_S, *(part for field in fields.items() for part in field)]
    redis.register_script(_WRITE)(args=args)


def remove(redis: Redis, name: str) -> None:
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(worker_key(name))
        pipeline.srem(_NAMES_KEY, name)
        pipeline.execute()


def read_all(redis: Redis) -> list[WorkerStatus]:
    """Every living worker, by name; forgets the names of those whose heartbeat stopped."""
    reply = cast(Reply, redis.eval(READ, 0))
    dead = [as_text(name) for name, fields in reply if not fields]
    if dead:
        redis.srem(_NAMES_KEY, *dead)
    return living(reply)


def living(reply: Reply) -> list[WorkerStatus]:
    """The statuses that a reply to `READ` has, by name."""
    statuses = [
        status
        for _, fields in reply
        if fields and (status := _read(dict(zip(fields[::2], fields[1::2], strict=True))))
    ]
    return sorted(statuses, key=lambda status: status.name)


def _read(fields: Mapping[bytes | str, bytes | str]) -> WorkerStatus | None:
    """None, with a line in the log, for what a worker of another version wrote."""
    try:
        return _parse(fields)
    except (KeyError, ValueError) as error:
        logger.warning("event=worker_status_unreadable reason=%s", error)
        return None


def _parse(fields: Mapping[bytes | str, bytes | str]) -> WorkerStatus:
    values = {as_text(name): as_text(value) for name, value in fields.items()}
    return WorkerStatus(
        name=values["name"],
        task=Task(values["task"]),
        state=WorkerState(values["state"]),
        pid=int(values["pid"]),
        host=values["host"],
        device=values["device"],
        models=_MODELS.validate_json(values["models"]),
        started_at=float(values["started_at"]),
        heartbeat_at=float(values["heartbeat_at"]),
    )
