"""The Lua programs that change a record, each one atomic step on the server.

Times are the server's own clock, so workers on several hosts agree about leases. The keys of the
running set and of RQ's list follow from the record's task; a Redis Cluster is not supported.
Knows nothing of Python's side of a record (see `records`).
"""

from rq.job import Job as RqJob
from rq.queue import Queue

RECORD_PREFIX = "triptych:job:"
RUNNING_PREFIX = "triptych:running:"
FINISHED_CHANNEL = "triptych:finished"
QUEUE_NAME_PREFIX = "triptych-"
_QUEUE_PREFIX = Queue.redis_queue_namespace_prefix + QUEUE_NAME_PREFIX

_PRELUDE = f"""
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function stamp(seconds)
  return string.format('%.6f', seconds)
end

local function record_key(id)
  return '{RECORD_PREFIX}' .. id
end

local function running_key(key)
  return '{RUNNING_PREFIX}' .. redis.call('HGET', key, 'task')
end

local function queue_key(key)
  return '{_QUEUE_PREFIX}' .. redis.call('HGET', key, 'task')
end

local function rq_job_key(id)
  return '{RqJob.redis_job_namespace_prefix}' .. id
end

local function is_running(key, attempt)
  local fields = redis.call('HMGET', key, 'state', 'attempt')
  return fields[1] == 'running' and fields[2] == attempt
end

-- The only way into a final state. The inputs' bytes are not needed any more.
local function conclude(id, state, ttl_s)
  local key = record_key(id)
  redis.call('HSET', key, 'state', state, 'finished_at', stamp(now()))
  redis.call('HDEL', key, 'images', 'lease_expires_at')
  redis.call('ZREM', running_key(key), id)
  redis.call('EXPIRE', key, ttl_s)
  redis.call('PUBLISH', '{FINISHED_CHANNEL}', id)
end
"""

# ARGV: worker, lease_s, ttl_s, id… Returns for each id the whole record, or false.
TAKE = (
    _PRELUDE
    + """
local function take(id, worker, lease_s, ttl_s)
  local key = record_key(id)
  if redis.call('HGET', key, 'state') ~= 'queued' then return false end
  local deadline_at = redis.call('HGET', key, 'deadline_at')
  if deadline_at and tonumber(deadline_at) <= now() then
    conclude(id, 'expired', ttl_s)
    return false
  end
  local lease_expires_at = stamp(now() + lease_s)
  redis.call('HINCRBY', key, 'attempt', 1)
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'step', 0,
    'started_at', stamp(now()), 'lease_expires_at', lease_expires_at)
  redis.call('ZADD', running_key(key), lease_expires_at, id)
  return redis.call('HGETALL', key)
end

local records = {}
for i = 4, #ARGV do
  records[#records + 1] = take(ARGV[i], ARGV[1], tonumber(ARGV[2]), ARGV[3])
end
return records
"""
)

# ARGV: lease_s, then id and attempt in turn.
RENEW = (
    _PRELUDE
    + """
for i = 2, #ARGV, 2 do
  local id, attempt = ARGV[i], ARGV[i + 1]
  local key = record_key(id)
  if is_running(key, attempt) then
    local lease_expires_at = stamp(now() + tonumber(ARGV[1]))
    redis.call('HSET', key, 'lease_expires_at', lease_expires_at)
    redis.call('ZADD', running_key(key), lease_expires_at, id)
  end
end
"""
)

# ARGV: id, attempt, step, num_steps. Returns 1, or 0 for a stale attempt.
PROGRESS = (
    _PRELUDE
    + """
local key = record_key(ARGV[1])
if not is_running(key, ARGV[2]) then return 0 end
redis.call('HSET', key, 'step', ARGV[3], 'num_steps', ARGV[4])
return 1
"""
)

# ARGV: id, attempt, ttl_s, state, then optionally the field (result or failure) and its JSON.
FINISH = (
    _PRELUDE
    + """
local key = record_key(ARGV[1])
if not is_running(key, ARGV[2]) then return 0 end
if ARGV[5] then redis.call('HSET', key, ARGV[5], ARGV[6]) end
conclude(ARGV[1], ARGV[4], ARGV[3])
return 1
"""
)

# ARGV: id, ttl_s. A queued job loses its queue entry too, unless a worker has just taken that out.
CANCEL = (
    _PRELUDE
    + """
local key = record_key(ARGV[1])
local state = redis.call('HGET', key, 'state')
if state == 'queued' then
  if redis.call('LREM', queue_key(key), 1, ARGV[1]) == 1 then
    redis.call('DEL', rq_job_key(ARGV[1]))
  end
  redis.call('HSET', key, 'cancel_requested', 1)
  conclude(ARGV[1], 'canceled', ARGV[2])
elseif state == 'running' then
  redis.call('HSET', key, 'cancel_requested', 1)
end
"""
)

# ARGV: id, attempt, ttl_s. Back to the front of the queue, as the job has waited longest; canceled
# instead, if that was asked of its lost worker.
RELEASE = (
    _PRELUDE
    + """
local key = record_key(ARGV[1])
if not is_running(key, ARGV[2]) then return 0 end
local queue = queue_key(key)
redis.call('LREM', queue .. ':intermediate', 0, ARGV[1])
if redis.call('HGET', key, 'cancel_requested') == '1' then
  redis.call('DEL', rq_job_key(ARGV[1]))
  conclude(ARGV[1], 'canceled', ARGV[3])
  return 1
end
redis.call('HSET', key, 'state', 'queued', 'step', 0)
redis.call('HDEL', key, 'started_at', 'worker', 'lease_expires_at')
redis.call('ZREM', running_key(key), ARGV[1])
redis.call('HSET', rq_job_key(ARGV[1]), 'status', 'queued')
redis.call('PERSIST', rq_job_key(ARGV[1]))
redis.call('LPUSH', queue, ARGV[1])
return 1
"""
)

# ARGV: id. A worker died between taking the entry from the list and taking the job, or the job was
# for another. Returns 1 if the job is back at the front of the queue.
UNSTICK = (
    _PRELUDE
    + """
local key = record_key(ARGV[1])
local state = redis.call('HGET', key, 'state')
if not state then return 0 end
local queue = queue_key(key)
if redis.call('LREM', queue .. ':intermediate', 0, ARGV[1]) == 0 then return 0 end
if state ~= 'queued' then return 0 end
redis.call('LPUSH', queue, ARGV[1])
return 1
"""
)

# ARGV: RQ's list, its intermediate list, how many entries to look at, then models. Moves the first
# entry of one of these models, or past its deadline, or without a record. Returns its id or false,
# and the other models that stand before it.
SELECT = (
    _PRELUDE
    + """
local is_ours, others, is_seen = {}, {}, {}
for i = 4, #ARGV do is_ours[ARGV[i]] = true end
for _, id in ipairs(redis.call('LRANGE', ARGV[1], 0, tonumber(ARGV[3]) - 1)) do
  local fields = redis.call('HMGET', record_key(id), 'model', 'deadline_at')
  local model, deadline_at = fields[1], tonumber(fields[2] or 'inf')
  if not model or is_ours[model] or deadline_at <= now() then
    redis.call('LREM', ARGV[1], 1, id)
    redis.call('RPUSH', ARGV[2], id)
    return {id, others}
  end
  if not is_seen[model] then
    is_seen[model] = true
    others[#others + 1] = model
  end
end
return {false, others}
"""
)
