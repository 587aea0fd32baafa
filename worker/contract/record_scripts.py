"""The Lua programs that change a record, each one atomic step on the server.

Each changes with the record what RQ (2.12) keeps of the job, so that `rq info` and rq-dashboard are
right at any moment, and the stream of the job's events. RQ's execution is our attempt: among the
jobs that run, RQ's entry is `id:attempt`. Times are the server's own clock, so workers on several
hosts agree about leases; RQ's are ISO texts, which the caller gives. A Redis Cluster is not
supported, as keys follow from the record. The claim has a file of its own (`claim_script`). Knows
nothing of Python's side of a record (see `records`).
"""

from rq.results import Result

from worker.contract.claim_script import CLAIM_PREFIX, DEAD
from worker.contract.idempotency_script import IDEMPOTENCY
from worker.contract.listing_script import LISTING
from worker.contract.script_prelude import (
    ALLOW_OOM,
    DEADLINES_KEY,
    DENY_OOM,
    EVENTS_PREFIX,
    PRELUDE,
    READING,
    RESULTS_PREFIX,
    RQ_RESULT_TTL_S,
)
from worker.contract.sharing_script import RESULTS_KEY, SHARING
from worker.contract.waiting_scripts import WAITING

QUARANTINED_KEY = "triptych:quarantined"  # the jobs that cost too many workers, by time
_ANSWER_TTL_S = 600  # of the record of a job that a kept result answers, if that is small
_DEAD_S = 60  # longer than a command of a dead process can be on its way
_EXPIRED_AT_ONCE = 1000
_REAPED_AT_ONCE = 1000
_MENDED_AT_ONCE = 500  # entries of RQ's list: others wait for a few milliseconds
_LOOKED_AT_S = 3  # the reaper's rounds

# ARGV: id, task, caller, max_depth, deadline_at (or ''), created_at and enqueued_at in RQ's form,
# the fingerprint (or ''), whether it may be answered by a kept result (1 or 0), until when a run
# must be allowed to last for it to share that (or ''), the ttl_s of what is kept, created_at again
# (or '', where the job is not to be listed), the digests of the idempotency key and of what was
# asked (or ''), who waits for the end (or ''), then the record's fields and values in turn.
# Returns one of
#   queued, how many jobs stand before it
#   joined
#   answered, the record's fields and values in turn
#   attached, the id of the key's job and its state: nothing is queued
#   key_reused: the key stands for another request
#   too_deep, the depth, how many of it are the caller's, the created_at of the oldest that waits
# A client that lost the reply may send it again: nothing is queued twice.
SUBMIT = (
    DENY_OOM
    + SHARING
    + IDEMPOTENCY
    + LISTING
    + f"""
local id, task, caller, max_depth, deadline_at, created_at, enqueued_at = unpack(ARGV, 1, 7)
local fingerprint, reads_cache, least_deadline, ttl_s = unpack(ARGV, 8, 11)
local listed_at, key_digest, asked, waiter = unpack(ARGV, 12, 15)
local key = record_key(id)

local function queue()
  if least_deadline ~= '' then redis.call('SET', run_key(fingerprint), id) end
  book_waiting(id, task, created_at, enqueued_at)
  local num_before = put_in_queue(id)
  emit_alone(id, 'queued', 'position', num_before)
  return {{'queued', num_before}}
end

local function join(leader)
  redis.call('HSET', key, 'rq_created_at', created_at, 'rq_enqueued_at', enqueued_at)
  join_run(id, leader)
  return {{'joined'}}
end

-- They can come by the thousand a second: the record of one that is waited for, which tells its end
-- by itself, is kept briefly; but a key's as long as the key.
local function answer(result)
  redis.call('HSET', key, 'started_at', now_text, 'step', redis.call('HGET', key, 'num_steps'))
  if waiter ~= '' and key_digest == '' then
    redis.call('HSET', key, 'keep_s', briefly(task, {_ANSWER_TTL_S}, ttl_s))
  end
  close_record(id, task, 'succeeded', now_text, ttl_s, 'result', result)
  return {{'answered', unpack(redis.call('HGETALL', key))}}
end

local function answered_before()
  local leader, attempt, result = unpack(redis.call('HMGET', key, 'shares', 'attempt', 'result'))
  if leader then return {{'joined'}} end
  if result and attempt == '0' then
    return {{'answered', unpack(redis.call('HGETALL', key))}}
  end
  return {{'queued', position(id) or 0}}
end

if redis.call('EXISTS', key) == 1 then return answered_before() end
if key_digest ~= '' then
  local earlier, its_asked = job_of_key(key_digest)
  if earlier and its_asked ~= asked then return {{'key_reused'}} end
  if earlier then
    attach(earlier, waiter)
    return {{'attached', earlier, redis.call('HGET', record_key(earlier), 'state')}}
  end
end
local result = reads_cache == '1' and find_result(fingerprint, ttl_s)
local leader = not result and least_deadline ~= '' and leader_of(fingerprint, least_deadline)
if not result then
  local is_too_deep, depth, num_of_caller = is_full(task, caller, tonumber(max_depth))
  if is_too_deep then
    local oldest = redis.call('ZRANGE', waiting_key(task), 0, 0, 'WITHSCORES')
    return {{'too_deep', depth, num_of_caller, oldest[2] or ''}}
  end
end
redis.call('HSET', key, unpack(ARGV, 16))
if key_digest ~= '' then hold_key(key_digest, asked, id, waiter, deadline_at, ttl_s) end
if listed_at ~= '' then list_job(id, caller, listed_at, deadline_at, ttl_s) end
if result then return answer(result) end
if deadline_at ~= '' then redis.call('ZADD', '{DEADLINES_KEY}', deadline_at, id) end
return leader and join(leader) or queue()
"""
)

# ARGV: id, fingerprint. Undoes a submit that was answered, as the files of the result are gone.
WITHDRAW_ANSWER = (
    ALLOW_OOM
    + SHARING
    + f"""
drop_result(ARGV[2])
redis.call('DEL', record_key(ARGV[1]), '{EVENTS_PREFIX}' .. ARGV[1])
"""
)

# ARGV: id, ttl_s. A client was told to come back for the job: no other one that leaves cancels it,
# and a record that was to be kept briefly is kept like others.
KEEP = (
    ALLOW_OOM
    + PRELUDE
    + LISTING
    + """
local id, ttl_s = ARGV[1], ARGV[2]
local key = record_key(id)
redis.call('HDEL', key, 'waiters')
if redis.call('HDEL', key, 'keep_s') == 1 then
  local caller, created_at, deadline_at, finished_at = unpack(redis.call('HMGET', key,
    'caller', 'created_at', 'deadline_at', 'finished_at'))
  list_job(id, caller, created_at, deadline_at, ttl_s)
  if finished_at then redis.call('EXPIRE', key, ttl_s) end
end
"""
)

# ARGV: id. Returns how many jobs stand before it, or nothing for one that does not wait.
POSITION = (
    READING
    + WAITING
    + """
return position(ARGV[1])
"""
)

# ARGV: lease_s, then id and attempt in turn. Returns the ids of stale attempts.
RENEW = (
    ALLOW_OOM
    + PRELUDE
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
    DENY_OOM
    + PRELUDE
    + """
local function report(id, attempt, step, num_steps, remaining_s)
  local key = record_key(id)
  if not running(key, attempt) then return 'stale' end
  local known, cancel_requested = unpack(redis.call('HMGET', key, 'step', 'cancel_requested'))
  if step ~= known then
    set_fields(id, 'step', step, 'num_steps', num_steps)
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
# ''), the bytes that kept results may take, then for each job id, attempt, state, the field (result
# or failure, or '') and its JSON, and RQ's text of why it did not succeed (or ''). Returns for each
# job 1, or 0 for a stale attempt.
FINISH = (
    ALLOW_OOM
    + SHARING
    + f"""
local ttl_s, at, worker, next_job, cache_bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local tasks = {{}}

local function book_success(id, task)
  local rq_ttl_s = briefly(task, {RQ_RESULT_TTL_S}, ttl_s)
  redis.call('HSET', rq_job_key(id), 'status', 'finished', 'ended_at', at, 'last_heartbeat', at)
  redis.call('EXPIRE', rq_job_key(id), rq_ttl_s)
  redis.call('XADD', '{RESULTS_PREFIX}' .. id, 'MAXLEN', '~', 10, '*',
    'type', {Result.Type.SUCCESSFUL.value}, 'worker_name', worker)
  redis.call('EXPIRE', '{RESULTS_PREFIX}' .. id, rq_ttl_s)
  redis.call('ZADD', finished_key(task), later(rq_ttl_s), id)
end

-- Returns how long the job ran, or nil for a stale attempt.
local function finish(id, attempt, state, field, text, exc_string)
  local task, started_at, fingerprint = running(record_key(id), attempt)
  if not task then return nil end
  tasks[task] = true
  if field == '' then
    conclude(id, task, state, ttl_s)
  else
    conclude(id, task, state, ttl_s, field, text)
  end
  if fingerprint and state == 'succeeded' and tonumber(cache_bytes) > 0 then
    keep_result(id, fingerprint, text, tonumber(cache_bytes), ttl_s)
  end
  redis.call('ZREM', started_key(task), id .. ':' .. attempt)
  if state == 'succeeded' then
    book_success(id, task)
  else
    book_failure(id, task, state == 'failed' and 'failed' or 'stopped', exc_string, at, worker,
      ttl_s)
  end
  return now - started_at
end

-- Whether this very ending was made before, and its reply lost.
local function is_repeated(id, attempt, state, field, text)
  local its_state, its_attempt, its_text, run_state = unpack(redis.call('HMGET', record_key(id),
    'state', 'attempt', field, 'run_state'))
  if its_attempt ~= attempt then return false end
  -- of a run that its first client had abandoned, no more is left
  return run_state == state or its_state == state and (field == '' or its_text == text)
end

local replies, num_succeeded, num_failed, run_s = {{}}, 0, 0, 0
for i = 6, #ARGV, 6 do
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
for task in pairs(tasks) do
  redis.call('ZREMRANGEBYSCORE', finished_key(task), '-inf', now_text)
  redis.call('ZREMRANGEBYSCORE', failed_key(task), '-inf', now_text)
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

# Ends a queued job at once, and asks the worker of a running one to stop; where others share its
# run, it ends for its own client alone.
_CANCELING = """
local function cancel(id, ttl_s)
  local state, task, leader, abandoned_at = unpack(redis.call('HMGET', record_key(id),
    'state', 'task', 'shares', 'abandoned_at'))
  if state ~= 'queued' and state ~= 'running' or abandoned_at then return end
  if leader then
    leave_run(id, task, 'canceled', ttl_s)
  elseif redis.call('EXISTS', sharers_key(id)) == 1 then
    abandon(id, task, ttl_s)
  else
    stop_run(id, task, state, ttl_s)
  end
end
"""

# ARGV: id, ttl_s.
CANCEL = (
    ALLOW_OOM
    + SHARING
    + _CANCELING
    + """
cancel(ARGV[1], ARGV[2])
"""
)

# ARGV: id, ttl_s, who has waited for the end, the digest of its idempotency key (or '', where it is
# known that the job is the key's). Cancels the job unless it is for others as well, who sent the
# same key. Without a record, the request was attached to the key's job, and could not be told.
LEAVE = (
    ALLOW_OOM
    + SHARING
    + IDEMPOTENCY
    + _CANCELING
    + """
local id, ttl_s, waiter, key_digest = unpack(ARGV, 1, 4)
if key_digest ~= '' and redis.call('EXISTS', record_key(id)) == 0 then
  id = job_of_key(key_digest) or id
end
if detach(id, waiter) then cancel(id, ttl_s) end
"""
)

# ARGV: id. Forgets a job that is over. Returns nothing where there is none, `running` for one that
# is not over, else `forgotten` and its result, where that names files that no other job can have.
FORGET = (
    ALLOW_OOM
    + SHARING
    + IDEMPOTENCY
    + f"""
local id = ARGV[1]
local state, task, abandoned_at, fingerprint, result, key_digest, is_forgotten =
  unpack(redis.call('HMGET', record_key(id), 'state', 'task', 'abandoned_at', 'fingerprint',
    'result', 'idempotency', 'is_forgotten'))
if not state or is_forgotten then return nil end
local is_live = state == 'queued' or state == 'running'
if is_live and not abandoned_at then return {{'running'}} end
if key_digest then free_key(key_digest, id) end
if is_live then
  -- others share its run, which needs the record: that goes with it
  redis.call('HSET', record_key(id), 'is_forgotten', 1, 'keep_s', 1)
  redis.call('DEL', '{EVENTS_PREFIX}' .. id)
  return {{'forgotten', ''}}
end
redis.call('DEL', record_key(id), rq_job_key(id), '{EVENTS_PREFIX}' .. id,
  '{RESULTS_PREFIX}' .. id)
redis.call('ZREM', finished_key(task), id)
redis.call('ZREM', failed_key(task), id)
redis.call('ZREM', '{QUARANTINED_KEY}', id)
if fingerprint and result and redis.call('HGET', '{RESULTS_KEY}', fingerprint) == result then
  drop_result(fingerprint)
end
return {{'forgotten', task == 'images' and not fingerprint and result or ''}}
"""
)

# What RELEASE and REAP share. A job whose cancel was asked for is canceled instead of put back.
_END_OF_ATTEMPT = """
local function put_back_or_cancel(id, task, ttl_s)
  if redis.call('HGET', record_key(id), 'cancel_requested') == '1' then
    redis.call('DEL', rq_job_key(id))
    redis.call('ZREM', failed_key(task), id)
    conclude(id, task, 'canceled', ttl_s)
    return false
  end
  put_back(id, task)
  return true
end
"""

# ARGV: ttl_s, then id and attempt in turn. A worker gives jobs back. Returns the ids of stale
# attempts.
RELEASE = (
    ALLOW_OOM
    + SHARING
    + _END_OF_ATTEMPT
    + """
local stale = {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local task = running(record_key(id), ARGV[i + 1])
  if task then
    end_attempt(id, task, 'given_back')
    put_back_or_cancel(id, task, ARGV[1])
  else
    stale[#stale + 1] = id
  end
end
return stale
"""
)

# ARGV: a worker that is dead, or '' for all whose lease has run out, max_losses, ttl_s, the time in
# RQ's form, the failure of a job that is given up as JSON and in RQ's form, then tasks. Returns for
# each job that was lost its id, task, model and attempt, and 1 where it was given up. What a dead
# worker's connection still brings claims nothing.
REAP = (
    ALLOW_OOM
    + SHARING
    + _END_OF_ATTEMPT
    + f"""
local dead, max_losses, ttl_s, at, failure, exc_string = unpack(ARGV, 1, 6)

local function give_up(id, task, worker)
  conclude(id, task, 'failed', ttl_s, 'failure', failure)
  book_failure(id, task, 'failed', exc_string, at, worker, ttl_s)
  redis.call('ZREMRANGEBYSCORE', '{QUARANTINED_KEY}', '-inf', later(-ttl_s))
  redis.call('ZADD', '{QUARANTINED_KEY}', now_text, id)
  redis.call('EXPIRE', '{QUARANTINED_KEY}', ttl_s)
end

local lost = {{}}
local function reap(id, task)
  local state, worker, model, attempt = unpack(redis.call('HMGET', record_key(id),
    'state', 'worker', 'model', 'attempt'))
  if state ~= 'running' then
    redis.call('ZREM', running_key(task), id)
  elseif dead == '' or worker == dead then
    end_attempt(id, task, 'worker_lost')
    local num_losses = redis.call('HINCRBY', record_key(id), 'losses', 1)
    if num_losses >= tonumber(max_losses) then
      give_up(id, task, worker)
      lost[#lost + 1] = {{id, task, model, attempt, 1}}
    elseif put_back_or_cancel(id, task, ttl_s) then
      lost[#lost + 1] = {{id, task, model, attempt, 0}}
    end
  end
end

if dead ~= '' then redis.call('SET', '{CLAIM_PREFIX}' .. dead, '{DEAD}', 'EX', {_DEAD_S}) end
for i = 7, #ARGV do
  local ids = dead ~= '' and redis.call('ZRANGE', running_key(ARGV[i]), 0, -1) or
    redis.call('ZRANGEBYSCORE', running_key(ARGV[i]), '-inf', now_text,
      'LIMIT', 0, {_REAPED_AT_ONCE})
  for _, id in ipairs(ids) do reap(id, ARGV[i]) end
end
return lost
"""
)

# ARGV: ttl_s. Ends the jobs that are queued past their deadline. Returns how many.
EXPIRE = (
    ALLOW_OOM
    + SHARING
    + f"""
local num_expired = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', '{DEADLINES_KEY}', '-inf', now_text,
    'LIMIT', 0, {_EXPIRED_AT_ONCE})) do
  local state, task, leader = unpack(redis.call('HMGET', record_key(id),
    'state', 'task', 'shares'))
  local is_live = state == 'queued' or state == 'running'
  if leader and is_live then
    leave_run(id, task, 'expired', ARGV[1])
    num_expired = num_expired + 1
  elseif state == 'queued' then
    end_waiting(id, task, 'expired', ARGV[1])
    num_expired = num_expired + 1
  elseif not state then
    redis.call('ZREM', '{DEADLINES_KEY}', id)
  end
end
return num_expired
"""
)

# ARGV: task. Returns whether somebody else may have changed RQ's list. Where it is as long as the
# set of those who wait, one part of it is looked at, another one every few seconds.
LOOK_AT_RQ_LIST = (
    READING
    + WAITING
    + f"""
local task, queue = ARGV[1], queue_key(ARGV[1])
local length = redis.call('LLEN', queue)
if length ~= redis.call('ZCARD', waiting_key(task)) then return 1 end
local num_parts = math.ceil(length / {_MENDED_AT_ONCE})
if num_parts == 0 then return 0 end
local first = math.floor(now / {_LOOKED_AT_S}) % num_parts * {_MENDED_AT_ONCE}
for i, id in ipairs(redis.call('LRANGE', queue, first, first + {_MENDED_AT_ONCE} - 1)) do
  if not redis.call('ZSCORE', waiting_key(task), id) then return 1 end
  local place = redis.call('HGET', record_key(id), 'place')  -- nil: somebody deleted the record
  if place and place ~= tostring(first + i - 1) then return 1 end
end
return 0
"""
)

# ARGV: task, the time in RQ's form, RQ's text for an entry that is refused, the place to begin at.
# Takes out of a part of RQ's list what does not wait, or stands there twice; what it leaves knows
# its place. Returns where to go on, or nothing at the end, and the entries without a record, which
# are booked as failed, for nobody runs them.
CLEAN_RQ_LIST = (
    ALLOW_OOM
    + WAITING
    + f"""
local task, at, refusal, place = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local queue, refused = queue_key(task), {{}}

-- What a stranger keeps at its keys may be of any type.
local function refuse(id)
  local state = redis.pcall('HGET', record_key(id), 'state')
  if type(state) ~= 'string' then
    refused[#refused + 1] = id
    if redis.call('EXISTS', rq_job_key(id)) == 1 then
      pcall(book_failure, id, task, 'failed', refusal, at, '', math.huge)
    end
  elseif state ~= 'queued' and state ~= 'running' then
    redis.call('DEL', rq_job_key(id))
  end
end

-- Whether a waiting job stands at this place and at no other.
local function belongs(id)
  local known = redis.call('HGET', record_key(id), 'place')
  if not known or known == tostring(place) then return true end
  if tonumber(known) < place and redis.call('LINDEX', queue, known) == id then return false end
  redis.call('HSET', record_key(id), 'place', place)
  return true
end

local function remove()
  local last = redis.call('RPOP', queue)
  if redis.call('LLEN', queue) > place then redis.call('LSET', queue, place, last) end
end

for _ = 1, {_MENDED_AT_ONCE} do
  local id = redis.call('LINDEX', queue, place)
  if not id then return {{refused}} end
  if not redis.call('ZSCORE', waiting_key(task), id) then
    refuse(id)
    remove()
  elseif belongs(id) then
    place = place + 1
  else
    remove()
  end
end
return {{refused, place}}
"""
)

# ARGV: task, the rank to begin at. Puts those who wait and are not in RQ's list into it, of a part
# of them. Returns where to go on, or nothing at the end.
FILL_RQ_LIST = (
    ALLOW_OOM
    + WAITING
    + f"""
local task, first = ARGV[1], tonumber(ARGV[2])
local queue = queue_key(task)
local ids = redis.call('ZRANGE', waiting_key(task), first, first + {_MENDED_AT_ONCE} - 1)
for _, id in ipairs(ids) do
  local place = redis.call('HGET', record_key(id), 'place')
  if place and redis.call('LINDEX', queue, place) ~= id then
    redis.call('HSET', record_key(id), 'place', redis.call('RPUSH', queue, id) - 1)
  end
end
return #ids == {_MENDED_AT_ONCE} and first + #ids or nil
"""
)
