"""The Lua program by which a worker takes jobs: from the entries that wait to records that run.

The rest of a record's life is in `record_scripts`.
"""

from worker.contract.script_prelude import PRELUDE

_CLAIM_PREFIX = "triptych:claim:"  # by worker: what its last claim took
_ENTRIES_AT_ONCE = 64
_CLAIMED_BYTES = 64 * 2**20  # of inputs; other clients wait while such a reply is made

# ARGV: task, worker, lease_s, ttl_s, the time in RQ's form, RQ's text for an entry that is refused,
# the claim's token, how many entries to look at, the id that the worker waited for (or ''),
# max_jobs, rows_of_new_group, the number of groups, for each its name and room, then models.
# Returns the records that run now, the entries that were refused, and the other models that wait.
# A worker that lost the reply may send it again: the same token gives the same records.
CLAIM = (
    PRELUDE
    + f"""
local task, worker, lease_s, ttl_s = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local at, refusal, token, max_seen, waited_for = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local max_jobs, rows_of_new_group = tonumber(ARGV[10]), tonumber(ARGV[11])
local queue, claim_key = queue_key(task), '{_CLAIM_PREFIX}' .. worker
local room, is_ours, first_model = {{}}, {{}}, 13 + 2 * ARGV[12]
local num_open = rows_of_new_group < 1 and 0 or math.huge  -- groups with room
for i = 13, first_model - 1, 2 do
  room[ARGV[i]] = tonumber(ARGV[i + 1])
  if room[ARGV[i]] > 0 then num_open = num_open + 1 end
end
for i = first_model, #ARGV do is_ours[ARGV[i]] = true end
local records, refused, others, is_noted = {{}}, {{}}, {{}}, {{}}
local taken, first_id, num_bytes = {{token}}, nil, 0

-- What a stranger keeps at its keys may be of any type, and must not stop the claim of others.
local function refuse(id)
  refused[#refused + 1] = id
  if redis.call('EXISTS', rq_job_key(id)) == 1 then
    pcall(book_failure, id, task, 'failed', refusal, at, worker)
  end
end

local function give(id, attempt)
  lease(id, task, attempt, lease_s)
  records[#records + 1] = {{id, attempt, unpack(redis.call('HMGET', record_key(id),
    'job', 'group', 'num_rows', 'num_steps', 'started_at', 'images'))}}
  first_id = first_id or id
end

local function give_again(given)
  for id, attempt in string.gmatch(given, ' (%S+) (%d+)') do
    if running(record_key(id), attempt) then give(id, attempt) end
  end
end

local function start(id, attempt)
  redis.call('HSET', record_key(id), 'state', 'running', 'attempt', attempt, 'worker', worker,
    'step', 0, 'started_at', now_text)
  redis.call('HSET', rq_job_key(id), 'status', 'started', 'started_at', at, 'last_heartbeat', at,
    'worker_name', worker)
  emit(id, 'started', 'attempt', attempt)
  taken[#taken + 1] = id .. ' ' .. attempt
  give(id, attempt)
end

-- Says whether the entry leaves the queue. A record that lacks a field is taken, to fail.
local function decide(id)
  local fields = redis.pcall('HMGET', record_key(id),
    'state', 'task', 'model', 'deadline_at', 'group', 'num_rows', 'attempt')
  local state, model, deadline_at, group = fields[1], fields[3], fields[4], fields[5]
  if not state then
    refuse(id)
  elseif fields[2] ~= task then
    return true
  elseif state == 'queued' and deadline_at and tonumber(deadline_at) <= now then
    redis.call('DEL', rq_job_key(id))
    conclude(id, task, 'expired', ttl_s)
  elseif state == 'queued' then
    if model and not is_ours[model] then
      if not is_noted[model] then others[#others + 1] = model end
      is_noted[model] = true
      return false
    end
    local rows = room[group] or rows_of_new_group
    if rows < 1 then return false end
    num_bytes = num_bytes + redis.call('HSTRLEN', record_key(id), 'images')
    if #records > 0 and num_bytes > {_CLAIMED_BYTES} then
      max_jobs = #records
      return false
    end
    room[group] = rows - (tonumber(fields[6]) or 1)
    if room[group] < 1 then num_open = num_open - 1 end
    start(id, tostring((tonumber(fields[7]) or 0) + 1))
  elseif state ~= 'running' then
    redis.call('DEL', rq_job_key(id))
  end
  return true
end

-- Back where it came from, to be decided with the others.
if waited_for ~= '' and redis.call('LREM', intermediate_key(task), 1, waited_for) == 1 then
  redis.call('LPUSH', queue, waited_for)
end
local given, num_seen, leaving = redis.call('GET', claim_key), 0, {{}}
if given and string.match(given, '^%S+') == token then
  give_again(given)
  max_seen = 0
end
local function may_take()
  return #records < max_jobs and num_open > 0
end
while may_take() and num_seen < tonumber(max_seen) do
  local entries = redis.call('LRANGE', queue, num_seen, num_seen + {_ENTRIES_AT_ONCE - 1})
  for _, id in ipairs(entries) do
    if not may_take() then break end
    num_seen = num_seen + 1
    if decide(id) then leaving[#leaving + 1] = id end
  end
  if #entries < {_ENTRIES_AT_ONCE} then break end
end
if #leaving == num_seen then
  redis.call('LTRIM', queue, num_seen, -1)
else
  for _, id in ipairs(leaving) do redis.call('LREM', queue, 1, id) end
end
if #taken > 1 then
  redis.call('SET', claim_key, table.concat(taken, ' '), 'PX', math.ceil(1000 * lease_s))
end
if first_id and redis.call('EXISTS', rq_worker_key(worker)) == 1 then
  redis.call('HSET', rq_worker_key(worker), 'state', 'busy', 'current_job_working_time', 0)
  redis.call('HSETNX', rq_worker_key(worker), 'current_job', first_id)
end
return {{records, refused, others}}
"""
)
