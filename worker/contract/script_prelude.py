"""What every script begins with: the clock, the names of the keys, and what several of them do.

That is to say that something happened, to lease a job, to end it, and to enter a failure in RQ's
books. Knows nothing of the scripts (see `record_scripts`, `claim_script`).
"""

from rq.intermediate_queue import IntermediateQueue
from rq.job import Job as RqJob
from rq.queue import Queue
from rq.registry import BaseRegistry, FailedJobRegistry, StartedJobRegistry
from rq.results import Result, get_key
from rq.worker import BaseWorker

RECORD_PREFIX = "triptych:job:"
RUNNING_PREFIX = "triptych:running:"
EVENTS_PREFIX = "triptych:events:"
DEADLINES_KEY = "triptych:deadlines"  # of the jobs that are not final
FINISHED_CHANNEL = "triptych:finished"
QUEUE_NAME_PREFIX = "triptych-"
RQ_RESULT_TTL_S = 600
RQ_FAILURE_TTL_S = 86_400
RESULTS_PREFIX: str = get_key("")  # type: ignore[no-untyped-call]
_QUEUE_PREFIX = Queue.redis_queue_namespace_prefix + QUEUE_NAME_PREFIX
_MAX_EVENTS = 256
_EVENTS_TTL_S = 600  # from the end: for who was cut off and comes back
_STARTED_GRACE_S = 120  # after a lease's end RQ may fail the job by itself; the reaper comes before


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

local function queue_key(task)
  return '{_QUEUE_PREFIX}' .. task
end

local function intermediate_key(task)
  return queue_key(task) .. '{IntermediateQueue.get_intermediate_queue_key("")}'
end

local function rq_job_key(id)
  return '{RqJob.redis_job_namespace_prefix}' .. id
end

-- RQ's registry of the jobs that run.
local function started_key(task)
  return '{registry_prefix(StartedJobRegistry)}' .. task
end

local function failed_key(task)
  return '{registry_prefix(FailedJobRegistry)}' .. task
end

local function rq_worker_key(worker)
  return '{BaseWorker.redis_worker_namespace_prefix}' .. worker
end

local function emit(id, ...)
  redis.call('XADD', '{EVENTS_PREFIX}' .. id, 'MAXLEN', '~', {_MAX_EVENTS}, '*', 'type', ...)
end

-- The task of a running job, and when it started, where this attempt is its present one.
local function running(key, attempt)
  local fields = redis.call('HMGET', key, 'state', 'attempt', 'task', 'started_at')
  if fields[1] ~= 'running' or fields[2] ~= attempt then return nil end
  return fields[3], tonumber(fields[4])
end

-- The only way into a final state; what else is to be set comes as fields and values. The bytes of
-- the inputs are not needed any more.
local function conclude(id, task, state, ttl_s, ...)
  local key = record_key(id)
  redis.call('HSET', key, 'state', state, 'finished_at', now_text, ...)
  if task == 'classify' then redis.call('HDEL', key, 'images') end
  redis.call('ZREM', running_key(task), id)
  redis.call('ZREM', '{DEADLINES_KEY}', id)
  redis.call('EXPIRE', key, ttl_s)
  redis.call('PUBLISH', '{FINISHED_CHANNEL}', id)
  emit(id, 'finished', 'state', state)
  redis.call('EXPIRE', '{EVENTS_PREFIX}' .. id, {_EVENTS_TTL_S})
end

local function lease(id, task, attempt, lease_s)
  redis.call('ZADD', running_key(task), later(lease_s), id)
  redis.call('ZADD', started_key(task), later(lease_s + {_STARTED_GRACE_S}), id .. ':' .. attempt)
end

-- RQ's books of an entry that failed; `exc_string` as RQ stores it.
local function book_failure(id, task, status, exc_string, at, worker)
  redis.call('HSET', rq_job_key(id), 'status', status, 'ended_at', at, 'last_heartbeat', at)
  redis.call('EXPIRE', rq_job_key(id), {RQ_FAILURE_TTL_S})
  redis.call('XADD', '{RESULTS_PREFIX}' .. id, 'MAXLEN', '~', 10, '*',
    'type', {Result.Type.FAILED.value}, 'worker_name', worker, 'exc_string', exc_string)
  redis.call('EXPIRE', '{RESULTS_PREFIX}' .. id, {RQ_FAILURE_TTL_S})
  redis.call('ZADD', failed_key(task), later({RQ_FAILURE_TTL_S}), id)
end
"""
