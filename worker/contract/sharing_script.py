"""Do it once: equal jobs share one run, and the results of those that are over are kept.

Jobs are equal where their fingerprints are (see `Reuse`). The first of those that come at one time
is queued and run as ever; the others share its run: their records name it in `shares`, are in no
queue and in none of RQ's books, but count among the jobs of their callers that wait, and what
happens to it happens to them by `emit`, `set_fields` and `conclude`. Each ends by itself where its
client cancels it. Where that is the first one's client, the run goes on for the others,
`abandoned`, and stops when the last of them has gone. Where a run ends before its time, by the
deadline of the first, the others begin anew; a job that has much more time does not join it.

The results that are kept are fields of one hash, by fingerprint, beside the sum of their bytes; a
sorted set has the time at which each expires, which every use puts off: its first is the one that
was used longest ago. Both keys expire with the last of it. The set of sharers lasts as long as the
run.
"""

from worker.contract.script_prelude import WORKER_PREFIX
from worker.contract.waiting_scripts import WAITING

RESULTS_KEY = "triptych:results"
RESULTS_BYTES = "bytes"  # the field with the sum; the others are digests
_EXPIRIES_KEY = "triptych:results:expiries"
NUM_EXPIRED_KEY = "triptych:num_expired"  # by task: how many jobs were never begun in time
_RUN_PREFIX = "triptych:run:"  # by fingerprint: the job whose run others can share
# Of a run: each is written to at every step of it. Where the result itself is in the record, its
# rows times the sharers: all these copies are made at once.
_MAX_SHARERS = 256
_BYTES_BESIDE = 400  # of a kept result: its name in both keys, and what Redis needs for it
_LARGEST_SHARE = 8  # a result of more than this part of the cache would push too many out
_EXPIRED_AT_ONCE = 100

SHARING = (
    WAITING
    + f"""
local function run_key(fingerprint)
  return '{_RUN_PREFIX}' .. fingerprint
end

local function drop_result(fingerprint)
  local num_bytes = redis.call('HSTRLEN', '{RESULTS_KEY}', fingerprint)
  if num_bytes > 0 then
    redis.call('HDEL', '{RESULTS_KEY}', fingerprint)
    redis.call('HINCRBY', '{RESULTS_KEY}', '{RESULTS_BYTES}', -num_bytes - {_BYTES_BESIDE})
  end
  redis.call('ZREM', '{_EXPIRIES_KEY}', fingerprint)
end

local function put_off_expiry(fingerprint, ttl_s)
  redis.call('ZADD', '{_EXPIRIES_KEY}', later(ttl_s), fingerprint)
  redis.call('EXPIRE', '{_EXPIRIES_KEY}', ttl_s)
  redis.call('EXPIRE', '{RESULTS_KEY}', ttl_s)
end

local function find_result(fingerprint, ttl_s)
  local expiry = redis.call('ZSCORE', '{_EXPIRIES_KEY}', fingerprint)
  if not expiry or tonumber(expiry) <= now then return nil end
  local text = redis.call('HGET', '{RESULTS_KEY}', fingerprint)
  if text then put_off_expiry(fingerprint, ttl_s) end
  return text
end

-- Drops what has expired, and what was used longest ago while there are too many bytes.
local function trim_results(num_bytes, max_bytes)
  for num_dropped = 0, math.huge do
    local first, expiry = unpack(redis.call('ZRANGE', '{_EXPIRIES_KEY}', 0, 0, 'WITHSCORES'))
    if not first then
      redis.call('DEL', '{RESULTS_KEY}')
      return
    end
    local is_due = tonumber(expiry) <= now and num_dropped < {_EXPIRED_AT_ONCE}
    if num_bytes <= max_bytes and not is_due then return end
    drop_result(first)
    num_bytes = tonumber(redis.call('HGET', '{RESULTS_KEY}', '{RESULTS_BYTES}') or 0)
  end
end

-- Keeps a result of a worker that serves the very model that the fingerprint was made for: it may
-- have been another with a model of that name.
local function keep_result(id, fingerprint, text, max_bytes, ttl_s)
  local num_bytes = #text + {_BYTES_BESIDE}
  if num_bytes > max_bytes / {_LARGEST_SHARE} then return end
  local worker, results_digest = unpack(redis.call('HMGET', record_key(id),
    'worker', 'results_digest'))
  local models = redis.call('HGET', '{WORKER_PREFIX}' .. worker, 'models')
  if not models or not string.find(models, results_digest, 1, true) then return end
  local before = redis.call('HSTRLEN', '{RESULTS_KEY}', fingerprint)
  if before > 0 then before = before + {_BYTES_BESIDE} end
  redis.call('HSET', '{RESULTS_KEY}', fingerprint, text)
  local all = redis.call('HINCRBY', '{RESULTS_KEY}', '{RESULTS_BYTES}', num_bytes - before)
  put_off_expiry(fingerprint, ttl_s)
  trim_results(all, max_bytes)
end

-- A job that comes and a job whose run it can share become one run. It stands where the better of
-- both would: the newcomer's caller may have waited for less, or be in a hurry.
local function move_forward(leader, caller, cost, priority)
  local key = record_key(leader)
  local task, model, entry = unpack(redis.call('HMGET', key, 'task', 'model', 'entry'))
  local its_turn = tonumber(redis.call('ZSCORE', turns_key(task, model), entry))
  if expected_turn(task, model, caller, priority, cost) >= its_turn then return end
  withdraw(leader)
  redis.call('HSET', key, 'caller', caller, 'priority', priority)
  redis.call('HDEL', key, 'entry')
  put_in_queue(leader)
end

-- Whose run a job of this fingerprint can share, or nil. One that ends too soon does not do: what
-- was waited for it would be lost.
local function leader_of(fingerprint, least_deadline)
  local leader = redis.call('GET', run_key(fingerprint))
  if not leader then return nil end
  local state, cancel_requested, deadline_at, task, num_rows = unpack(redis.call('HMGET',
    record_key(leader), 'state', 'cancel_requested', 'deadline_at', 'task', 'num_rows'))
  local is_live = state == 'queued' or state == 'running'
  if not is_live or cancel_requested == '1' then return nil end
  if tonumber(deadline_at or math.huge) < tonumber(least_deadline) then return nil end
  local max_sharers = task == 'images' and {_MAX_SHARERS} or math.floor({_MAX_SHARERS} / num_rows)
  return redis.call('SCARD', sharers_key(leader)) < max_sharers and leader or nil
end

-- Lets a job, whose record is that of a queued one, share a run: it is as far as that.
local function join_run(id, leader)
  local key = record_key(id)
  local state, attempt, step, num_steps, worker, started_at, past = unpack(redis.call('HMGET',
    record_key(leader), 'state', 'attempt', 'step', 'num_steps', 'worker', 'started_at',
    'past_attempts'))
  redis.call('HDEL', key, 'inputs')  -- the leader's record has them
  redis.call('HSET', key, 'shares', leader, 'state', state, 'attempt', attempt, 'step', step,
    'num_steps', num_steps)
  if past then redis.call('HSET', key, 'past_attempts', past) end
  redis.call('SADD', sharers_key(leader), id)
  local task, caller, cost, priority, created_at = unpack(redis.call('HMGET', key,
    'task', 'caller', 'cost', 'priority', 'created_at'))
  count_waiting(task, caller, 1)
  if state == 'queued' then move_forward(leader, caller, cost, priority) end
  emit_alone(id, 'queued', 'position', position(leader) or 0)
  if state == 'running' then
    if tonumber(started_at) < tonumber(created_at) then started_at = created_at end
    redis.call('HSET', key, 'worker', worker, 'started_at', started_at)
    emit_alone(id, 'started', 'attempt', attempt)
    if step ~= '0' then emit_alone(id, 'step', 'step', step, 'num_steps', num_steps) end
  end
end

-- Ends a job that shares a run. Whoever does counts among those who wait.
local function conclude_sharer(id, task, state, ttl_s, ...)
  local caller = redis.call('HGET', record_key(id), 'caller')
  if not caller then return end  -- somebody has deleted that record
  count_waiting(task, caller, -1)
  conclude_alone(id, task, state, ttl_s, ...)
end

-- The run of a leader ended before its time. Who is not late as well begins anew: the one that has
-- the most time leads the others.
local function run_again(sharers, old_leader, task, ttl_s)
  local leader, last, others = nil, -math.huge, {{}}
  for _, id in ipairs(sharers) do
    local state, deadline_at = unpack(redis.call('HMGET', record_key(id), 'state', 'deadline_at'))
    deadline_at = tonumber(deadline_at or math.huge)
    if deadline_at <= now then
      conclude_sharer(id, task, 'expired', ttl_s)
    elseif state then  -- else somebody has deleted that record
      others[#others + 1] = id
      if deadline_at > last then leader, last = id, deadline_at end
    end
  end
  if not leader then return end
  local key = record_key(leader)
  local inputs = redis.call('HGET', record_key(old_leader), 'inputs')
  if inputs then redis.call('HSET', key, 'inputs', inputs) end
  redis.call('HDEL', key, 'shares')
  for _, id in ipairs(others) do
    if id ~= leader then
      redis.call('HSET', record_key(id), 'shares', leader)
      redis.call('SADD', sharers_key(leader), id)
    end
  end
  set_fields(leader, 'state', 'queued', 'step', 0)
  clear_fields(leader, 'started_at', 'worker')
  local fingerprint, caller, created_at, enqueued_at = unpack(redis.call('HMGET', key,
    'fingerprint', 'caller', 'rq_created_at', 'rq_enqueued_at'))
  redis.call('SET', run_key(fingerprint), leader)
  count_waiting(task, caller, -1)  -- it counts as queued instead
  book_waiting(leader, task, created_at, enqueued_at)
  emit(leader, 'queued', 'position', put_in_queue(leader))
end

-- The only way into a final state: what else is to be set comes as fields and values.
local function conclude(id, task, state, ttl_s, ...)
  local key = record_key(id)
  local fingerprint, abandoned_at = unpack(redis.call('HMGET', key, 'fingerprint', 'abandoned_at'))
  if not fingerprint then return conclude_alone(id, task, state, ttl_s, ...) end
  if redis.call('GET', run_key(fingerprint)) == id then redis.call('DEL', run_key(fingerprint)) end
  local sharers = redis.call('SMEMBERS', sharers_key(id))
  if #sharers > 0 then redis.call('DEL', sharers_key(id)) end
  if state == 'canceled' or state == 'expired' then
    run_again(sharers, id, task, ttl_s)
  else
    for _, sharer in ipairs(sharers) do conclude_sharer(sharer, task, state, ttl_s, ...) end
  end
  if abandoned_at then
    redis.call('HSET', key, 'run_state', state)
    close_record(id, task, 'canceled', abandoned_at, ttl_s)
  else
    conclude_alone(id, task, state, ttl_s, ...)
  end
end

-- Ends a queued job that will not run.
local function end_waiting(id, task, state, ttl_s)
  if state == 'expired' then
    redis.call('HINCRBY', '{NUM_EXPIRED_KEY}', task, 1)
    redis.call('EXPIRE', '{NUM_EXPIRED_KEY}', ttl_s)
  end
  withdraw(id)
  redis.call('DEL', rq_job_key(id))
  conclude(id, task, state, ttl_s)
end

-- Ends the run of a job for all who share it: at once while it waits, else its worker is asked.
local function stop_run(id, task, state, ttl_s)
  redis.call('HSET', record_key(id), 'cancel_requested', 1)
  redis.call('HSETNX', record_key(id), 'cancel_requested_at', now_text)
  if state == 'queued' then end_waiting(id, task, 'canceled', ttl_s) end
end

-- Ends a job that shares a run, and that alone; the run as well, if nobody waits for it any more.
local function leave_run(id, task, state, ttl_s)
  local leader = redis.call('HGET', record_key(id), 'shares')
  redis.call('SREM', sharers_key(leader), id)
  conclude_sharer(id, task, state, ttl_s)
  local its_state, abandoned_at = unpack(redis.call('HMGET', record_key(leader),
    'state', 'abandoned_at'))
  if abandoned_at and redis.call('SCARD', sharers_key(leader)) == 0 then
    stop_run(leader, task, its_state, ttl_s)
  end
end

-- Ends a job for its own client, while its run goes on for those that share it.
local function abandon(id, task, ttl_s)
  redis.call('HSET', record_key(id), 'abandoned_at', now_text)
  redis.call('HDEL', record_key(id), 'waiters')
  publish_finished(id, task, 'canceled', ttl_s)
end
"""
)
