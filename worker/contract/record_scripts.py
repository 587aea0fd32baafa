"""The Lua programs that change a record, each one atomic step on the server.

Each changes with the record what RQ (2.12) keeps of the job, so that `rq info` and rq-dashboard are
right at any moment, and the stream of the job's events. RQ's execution is our attempt: among the
jobs that run, RQ's entry is `id:attempt`. Times are the server's own clock, so workers on several
hosts agree about leases; RQ's are ISO texts, which the caller gives. A Redis Cluster is not
supported, as keys follow from the record. The claim has a file of its own (`claim_script`). Knows
nothing of Python's side of a record (see `records`).
"""

from rq.queue import Queue
from rq.registry import FinishedJobRegistry
from rq.results import Result

from worker.contract.script_prelude import (
    DEADLINES_KEY,
    PRELUDE,
    QUEUE_NAME_PREFIX,
    RESULTS_PREFIX,
    RQ_FAILURE_TTL_S,
    RQ_RESULT_TTL_S,
    registry_prefix,
)

RQ_FUNCTION = "triptych.job"  # what RQ shows; there is no such function, and nothing looks for it
_EXPIRED_AT_ONCE = 1000

# ARGV: id, task, max_depth, created_at and enqueued_at in RQ's form, then the record's fields and
# values in turn. Returns 1 and how many jobs stand before it, or 0, the depth and the created_at of
# the oldest that waits. A client that lost the reply may send it again: nothing is queued twice.
SUBMIT = (
    PRELUDE
    + f"""
local id, task, max_depth = ARGV[1], ARGV[2], tonumber(ARGV[3])
local queue = queue_key(task)
if redis.call('EXISTS', record_key(id)) == 1 then
  return {{1, redis.call('LPOS', queue, id) or 0}}
end
local depth = redis.call('LLEN', queue)
if depth >= max_depth then
  local oldest = redis.call('LINDEX', queue, 0)
  return {{0, depth, oldest and redis.call('HGET', record_key(oldest), 'created_at') or ''}}
end
redis.call('HSET', record_key(id), unpack(ARGV, 6))
redis.call('HSET', rq_job_key(id), 'status', 'queued', 'origin', '{QUEUE_NAME_PREFIX}' .. task,
  'description', task .. ' ' .. id, 'data', '["{RQ_FUNCTION}", null, ["' .. id .. '"], {{}}]',
  'created_at', ARGV[4], 'enqueued_at', ARGV[5], 'timeout', -1,
  'result_ttl', {RQ_RESULT_TTL_S}, 'failure_ttl', {RQ_FAILURE_TTL_S})
redis.call('SADD', '{Queue.redis_queues_keys}', queue)
redis.call('RPUSH', queue, id)
local deadline_at = redis.call('HGET', record_key(id), 'deadline_at')
if deadline_at then redis.call('ZADD', '{DEADLINES_KEY}', deadline_at, id) end
emit(id, 'queued', 'position', depth)
return {{1, depth}}
"""
)

# ARGV: lease_s, then id and attempt in turn. Returns the ids of stale attempts.
RENEW = (
    PRELUDE
    + """
local stale = {}
for i = 2, #ARGV, 2 do
  local task = running(record_key(ARGV[i]), ARGV[i + 1])
  if task then
    lease(ARGV[i], task, ARGV[i + 1], tonumber(ARGV[1]))
  else
    stale[#stale + 1] = ARGV[i]
  end
end
return stale
"""
)

# ARGV: for each job id, attempt, step, num_steps, remaining_s (or ''), the number of previews, and
# for each of these its index, step and image. Returns for each job go_on, cancel or stale.
REPORT = (
    PRELUDE
    + """
local function report(id, attempt, step, num_steps, remaining_s)
  local key = record_key(id)
  if not running(key, attempt) then return 'stale' end
  local known, cancel_requested = unpack(redis.call('HMGET', key, 'step', 'cancel_requested'))
  if step ~= known then
    redis.call('HSET', key, 'step', step, 'num_steps', num_steps)
    if remaining_s == '' then
      emit(id, 'step', 'step', step, 'num_steps', num_steps)
    else
      emit(id, 'step', 'step', step, 'num_steps', num_steps, 'remaining_s', remaining_s)
    end
  end
  return cancel_requested == '1' and 'cancel' or 'go_on'
end

local verdicts = {}
local i = 1
while i <= #ARGV do
  local id = ARGV[i]
  local verdict = report(id, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  local first_after = i + 6 + 3 * tonumber(ARGV[i + 5])
  if verdict ~= 'stale' then
    for j = i + 6, first_after - 1, 3 do
      emit(id, 'preview', 'index', ARGV[j], 'step', ARGV[j + 1], 'image', ARGV[j + 2])
    end
  end
  verdicts[#verdicts + 1] = verdict
  i = first_after
end
return verdicts
"""
)

# ARGV: ttl_s, the time in RQ's form, the worker (or ''), the job that it has in hand besides (or
# ''), then for each job id, attempt, state, the field (result or failure, or '') and its JSON, and
# RQ's text of why it did not succeed (or ''). Returns for each job 1, or 0 for a stale attempt.
FINISH = (
    PRELUDE
    + f"""
local ttl_s, at, worker, next_job = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function book_success(id, task)
  redis.call('HSET', rq_job_key(id), 'status', 'finished', 'ended_at', at, 'last_heartbeat', at)
  redis.call('EXPIRE', rq_job_key(id), {RQ_RESULT_TTL_S})
  redis.call('XADD', '{RESULTS_PREFIX}' .. id, 'MAXLEN', '~', 10, '*',
    'type', {Result.Type.SUCCESSFUL.value}, 'worker_name', worker)
  redis.call('EXPIRE', '{RESULTS_PREFIX}' .. id, {RQ_RESULT_TTL_S})
  redis.call('ZADD', '{registry_prefix(FinishedJobRegistry)}' .. task, later({RQ_RESULT_TTL_S}), id)
end

-- Returns how long the job ran, or nil for a stale attempt.
local function finish(id, attempt, state, field, text, exc_string)
  local task, started_at = running(record_key(id), attempt)
  if not task then return nil end
  if field == '' then
    conclude(id, task, state, ttl_s)
  else
    conclude(id, task, state, ttl_s, field, text)
  end
  redis.call('ZREM', started_key(task), id .. ':' .. attempt)
  if state == 'succeeded' then
    book_success(id, task)
  else
    book_failure(id, task, state == 'failed' and 'failed' or 'stopped', exc_string, at, worker)
  end
  return now - started_at
end

-- Whether this very ending was made before, and its reply lost.
local function is_repeated(id, attempt, state, field, text)
  local fields = redis.call('HMGET', record_key(id), 'state', 'attempt', field)
  return fields[1] == state and fields[2] == attempt and (field == '' or fields[3] == text)
end

local replies, num_succeeded, num_failed, run_s = {{}}, 0, 0, 0
for i = 5, #ARGV, 6 do
  local job_run_s = finish(unpack(ARGV, i, i + 5))
  replies[#replies + 1] = (job_run_s or is_repeated(unpack(ARGV, i, i + 4))) and 1 or 0
  if job_run_s then
    run_s = run_s + job_run_s
    if ARGV[i + 2] == 'succeeded' then
      num_succeeded = num_succeeded + 1
    else
      num_failed = num_failed + 1
    end
  end
end
local worker_key = rq_worker_key(worker)
if redis.call('EXISTS', worker_key) == 1 then
  redis.call('HINCRBY', worker_key, 'successful_job_count', num_succeeded)
  redis.call('HINCRBY', worker_key, 'failed_job_count', num_failed)
  redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', run_s)
  if next_job == '' then
    redis.call('HSET', worker_key, 'state', 'idle')
    redis.call('HDEL', worker_key, 'current_job')
  else
    redis.call('HSET', worker_key, 'current_job', next_job)
  end
end
return replies
"""
)

# ARGV: id, ttl_s. A queued job loses its queue entry too, unless a worker has just taken that out.
CANCEL = (
    PRELUDE
    + """
local id = ARGV[1]
local key = record_key(id)
local state, task = unpack(redis.call('HMGET', key, 'state', 'task'))
if state == 'queued' then
  if redis.call('LREM', queue_key(task), 1, id) == 1 then redis.call('DEL', rq_job_key(id)) end
  redis.call('HSET', key, 'cancel_requested', 1)
  conclude(id, task, 'canceled', ARGV[2])
elseif state == 'running' then
  redis.call('HSET', key, 'cancel_requested', 1)
end
"""
)

# ARGV: id, attempt, ttl_s. Back to the front of the queue, as the job has waited longest; canceled
# instead, if that was asked of its lost worker. Returns 1, or 0 for a stale attempt.
RELEASE = (
    PRELUDE
    + """
local id, attempt = ARGV[1], ARGV[2]
local key = record_key(id)
local task = running(key, attempt)
if not task then return 0 end
redis.call('ZREM', started_key(task), id .. ':' .. attempt)
redis.call('ZREM', failed_key(task), id)
if redis.call('HGET', key, 'cancel_requested') == '1' then
  redis.call('DEL', rq_job_key(id))
  conclude(id, task, 'canceled', ARGV[3])
  return 1
end
redis.call('HSET', key, 'state', 'queued', 'step', 0)
redis.call('HDEL', key, 'started_at', 'worker')
redis.call('ZREM', running_key(task), id)
redis.call('HSET', rq_job_key(id), 'status', 'queued', 'started_at', '', 'ended_at', '',
  'worker_name', '')
redis.call('PERSIST', rq_job_key(id))
redis.call('LPUSH', queue_key(task), id)
emit(id, 'queued', 'position', 0)
return 1
"""
)

# ARGV: task, id. A worker died between taking the entry from the list and taking the job. Returns 1
# if the entry is back at the front of the queue; without a record, for the next claim to refuse.
UNSTICK = (
    PRELUDE
    + """
local task, id = ARGV[1], ARGV[2]
if redis.call('LREM', intermediate_key(task), 0, id) == 0 then return 0 end
local state = unpack(redis.pcall('HMGET', record_key(id), 'state'))
if state and state ~= 'queued' then return 0 end
redis.call('LPUSH', queue_key(task), id)
return 1
"""
)

# ARGV: ttl_s. Ends the jobs that are queued past their deadline, with or without an entry: RQ's own
# tools may have emptied the queue. Returns how many.
EXPIRE = (
    PRELUDE
    + f"""
local num_expired = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', '{DEADLINES_KEY}', '-inf', now_text,
    'LIMIT', 0, {_EXPIRED_AT_ONCE})) do
  local state, task = unpack(redis.call('HMGET', record_key(id), 'state', 'task'))
  if state == 'queued' then
    redis.call('LREM', queue_key(task), 1, id)
    redis.call('DEL', rq_job_key(id))
    conclude(id, task, 'expired', ARGV[1])
    num_expired = num_expired + 1
  elseif not state then
    redis.call('ZREM', '{DEADLINES_KEY}', id)
  end
end
return num_expired
"""
)
