"""What every script begins with: the clock, the names of the keys, and what several of them do.

That is to say that something happened, to lease a job, to end it, and to enter a failure in RQ's
books. How jobs wait is in `waiting_scripts`. Knows nothing of the scripts (see `record_scripts`,
`claim_script`).
"""

from rq.job import Job as RqJob
from rq.queue import Queue
from rq.registry import (
    BaseRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result, get_key
from rq.worker import BaseWorker

RECORD_PREFIX = "triptych:job:"
RUNNING_PREFIX = "triptych:running:"
WAITING_PREFIX = "triptych:waiting:"  # by task: the ids, by the time at which they were created
EVENTS_PREFIX = "triptych:events:"
WORKER_PREFIX = "triptych:worker:"  # by name: what the worker says of itself
DEADLINES_KEY = "triptych:deadlines"  # of the jobs that are not final
FINISHED_CHANNEL = "triptych:finished"
QUEUE_NAME_PREFIX = "triptych-"
RQ_RESULT_TTL_S = 600
RQ_FAILURE_TTL_S = 86_400
RESULTS_PREFIX: str = get_key("")  # type: ignore[no-untyped-call]
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix + QUEUE_NAME_PREFIX
_MAX_EVENTS = 256
_EVENTS_TTL_S = 600  # from the end: for who was cut off and comes back
_BRIEF_TTL_S = 60
_STARTED_GRACE_S = 120  # after a lease's end RQ may fail the job by itself; the reaper comes before

# The first line of a script (Redis 7). What frees memory, or ends what was begun, also works on a
# server that is full; the others are refused there as a whole, before they have written anything.
DENY_OOM = "#!lua\n"
ALLOW_OOM = "#!lua flags=allow-oom\n"
READING = "#!lua flags=no-writes\n"


def registry_prefix(registry: type[BaseRegistry]) -> str:
    """The key of a registry, but for the task at its end."""
    return registry.key_template.format(QUEUE_NAME_PREFIX)


PRELUDE = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now_text = string.format('%.6f', now)

local function later(seconds)
  return string.format('%.6f', now + seconds)
end

local function record_key(id)
  return '{RECORD_PREFIX}' .. id
end

local function running_key(task)
  return '{RUNNING_PREFIX}' .. task
end

local function rq_job_key(id)
  return '{RqJob.redis_job_namespace_prefix}' .. id
end

-- RQ's registry of the jobs that run.
local function started_key(task)
  return '{registry_prefix(StartedJobRegistry)}' .. task
end

local function finished_key(task)
  return '{registry_prefix(FinishedJobRegistry)}' .. task
end

local function failed_key(task)
  return '{registry_prefix(FailedJobRegistry)}' .. task
end

local function rq_worker_key(worker)
  return '{BaseWorker.redis_worker_namespace_prefix}' .. worker
end

-- The jobs that share the run of a job (see `sharing_script`).
local function sharers_key(id)
  return 'triptych:sharers:' .. id
end

local function emit_alone(id, ...)
  redis.call('XADD', '{EVENTS_PREFIX}' .. id, 'MAXLEN', '~', {_MAX_EVENTS}, '*', 'type', ...)
end

-- Says it of a job that is not final and of those that share its run.
local function emit(id, ...)
  local sharers = redis.call('SMEMBERS', sharers_key(id))
  for _, sharer in ipairs(sharers) do emit_alone(sharer, ...) end
  if redis.call('HEXISTS', record_key(id), 'abandoned_at') == 0 then
    emit_alone(id, ...)
  end
end

-- Changes the record of a job that is not final, and of those that share its run.
local function set_fields(id, ...)
  redis.call('HSET', record_key(id), ...)
  for _, sharer in ipairs(redis.call('SMEMBERS', sharers_key(id))) do
    redis.call('HSET', record_key(sharer), ...)
  end
end

local function clear_fields(id, ...)
  redis.call('HDEL', record_key(id), ...)
  for _, sharer in ipairs(redis.call('SMEMBERS', sharers_key(id))) do
    redis.call('HDEL', record_key(sharer), ...)
  end
end

-- The task of a running job, when it started, and its fingerprint or false, where this attempt is
-- its present one.
local function running(key, attempt)
  local fields = redis.call('HMGET', key, 'state', 'attempt', 'task', 'started_at', 'fingerprint')
  if fields[1] ~= 'running' or fields[2] ~= attempt then return nil end
  return fields[3], tonumber(fields[4]), fields[5]
end

-- How long that is kept which a record of so many seconds needs beside it. Classifications and
-- embeddings come by the thousand a second: no more is kept of them than needs to be, or they would
-- fill the server.
local function briefly(task, longest_s, record_ttl_s)
  local ttl_s = math.min(longest_s, record_ttl_s)
  return task == 'images' and ttl_s or math.min(ttl_s, {_BRIEF_TTL_S})
end

-- For how long a record can be there: ttl_s from the end of its job, which comes by the deadline.
local function longest_s(deadline_at, ttl_s)
  return math.ceil(math.max(0, (tonumber(deadline_at) or now) - now) + ttl_s)
end

-- Makes a record final. Its inputs, and who waits for it, are not needed any more.
local function close_record(id, task, state, finished_at, ttl_s, ...)
  local key = record_key(id)
  redis.call('HSET', key, 'state', state, 'finished_at', finished_at, ...)
  redis.call('HDEL', key, 'inputs', 'waiters')
  redis.call('ZREM', running_key(task), id)
  redis.call('ZREM', '{DEADLINES_KEY}', id)
  redis.call('EXPIRE', key, redis.call('HGET', key, 'keep_s') or ttl_s)
end

-- Wakes who waits.
local function publish_finished(id, task, state, ttl_s)
  redis.call('PUBLISH', '{FINISHED_CHANNEL}', id)
  emit_alone(id, 'finished', 'state', state)
  redis.call('EXPIRE', '{EVENTS_PREFIX}' .. id, briefly(task, {_EVENTS_TTL_S}, ttl_s))
end

-- Ends one job, whoever shares its run.
local function conclude_alone(id, task, state, ttl_s, ...)
  close_record(id, task, state, now_text, ttl_s, ...)
  publish_finished(id, task, state, ttl_s)
end

local function lease(id, task, attempt, lease_s)
  redis.call('ZADD', running_key(task), later(lease_s), id)
  redis.call('ZADD', started_key(task), later(lease_s + {_STARTED_GRACE_S}), id .. ':' .. attempt)
end

-- RQ's books of an entry that failed; `exc_string` as RQ stores it.
local function book_failure(id, task, status, exc_string, at, worker, record_ttl_s)
  local ttl_s = briefly(task, {RQ_FAILURE_TTL_S}, record_ttl_s)
  redis.call('HSET', rq_job_key(id), 'status', status, 'ended_at', at, 'last_heartbeat', at)
  redis.call('EXPIRE', rq_job_key(id), ttl_s)
  redis.call('XADD', '{RESULTS_PREFIX}' .. id, 'MAXLEN', '~', 10, '*',
    'type', {Result.Type.FAILED.value}, 'worker_name', worker, 'exc_string', exc_string)
  redis.call('EXPIRE', '{RESULTS_PREFIX}' .. id, ttl_s)
  redis.call('ZADD', failed_key(task), later(ttl_s), id)
end
"""
