"""Which jobs a caller has: a sorted set of ids each, by the time at which they were created.

It names the jobs whose records are kept for clients to come back for, the newest of them where
those are too many, and lasts as long as they can. An id outlives its record, so that what was the
last of a page, and has been deleted since, still says where the next one begins: only the oldest
ids leave, where their records are gone or they are too many, some at a time as others come. So
there is nothing after one that has left.
"""

from worker.contract.script_prelude import PRELUDE, READING

END = "end"
MAX_LISTED = 10_000  # of one caller: some 1 MB
_TRIMMED_AT = 64  # ids more than at the last time
_READ_AT_ONCE = 500  # others wait for less than a millisecond

# Comes after the prelude.
LISTING = f"""
local function list_key(caller)
  return 'triptych:jobs:' .. caller
end

local function trim_list(key, size)
  local num_gone = 0
  for _, id in ipairs(redis.call('ZRANGE', key, 0, 2 * {_TRIMMED_AT} - 1)) do
    if redis.call('EXISTS', record_key(id)) == 1 then break end
    num_gone = num_gone + 1
  end
  local num_leaving = math.max(num_gone, size - {MAX_LISTED})
  if num_leaving > 0 then redis.call('ZREMRANGEBYRANK', key, 0, num_leaving - 1) end
end

-- Names a job that has its record, which is kept for ttl_s from its end.
local function list_job(id, caller, created_at, deadline_at, ttl_s)
  local key = list_key(caller)
  redis.call('ZADD', key, created_at, id)
  local size = redis.call('ZCARD', key)
  redis.call('EXPIRE', key, longest_s(deadline_at, ttl_s), size == 1 and 'NX' or 'GT')
  if size % {_TRIMMED_AT} == 0 then trim_list(key, size) end
end
"""

# ARGV: caller, the id after which to begin (or ''), how many to find at most, the task (or ''), the
# model (or ''), then the statuses, all where there is none. Reads a part, newest first. Returns how
# far it has come and `end` or `more`, then the ids that were found.
LIST = (
    READING
    + PRELUDE
    + LISTING
    + f"""
local caller, after, limit, task, model = unpack(ARGV, 1, 5)
local key, first = list_key(caller), 0
if after ~= '' then
  local rank = redis.call('ZREVRANK', key, after)
  if not rank then return {{after, '{END}'}} end
  first = rank + 1
end
local statuses = {{}}
for i = 6, #ARGV do statuses[ARGV[i]] = true end

local function matches(its_task, its_model, state, abandoned_at, cancel_requested)
  if task ~= '' and its_task ~= task or model ~= '' and its_model ~= model then return false end
  if abandoned_at then state = 'canceled' end
  if state == 'running' and cancel_requested == '1' then state = 'canceling' end
  return #ARGV < 6 or statuses[state]
end

local ids = redis.call('ZREVRANGE', key, first, first + {_READ_AT_ONCE} - 1)
local found, num_read = {{}}, 0
while num_read < #ids and #found < tonumber(limit) do
  num_read = num_read + 1
  local id = ids[num_read]
  local its_task, its_model, state, abandoned_at, cancel_requested, is_forgotten =
    unpack(redis.call('HMGET', record_key(id), 'task', 'model', 'state', 'abandoned_at',
      'cancel_requested', 'is_forgotten'))
  if state and not is_forgotten
      and matches(its_task, its_model, state, abandoned_at, cancel_requested) then
    found[#found + 1] = id
  end
end
local is_end = num_read == #ids and #ids < {_READ_AT_ONCE}
return {{ids[num_read] or after, is_end and '{END}' or 'more', unpack(found)}}
"""
)
