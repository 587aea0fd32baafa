"""The Lua program by which a worker takes jobs: from those that wait to records that run.

Who is next is in `waiting_scripts`, the rest of a record's life in `record_scripts`. What a claim
costs depends on the models that wait and the groups that the worker has in hand, and not on how
many jobs, callers or other groups there are.
"""

from worker.contract.script_prelude import ALLOW_OOM
from worker.contract.sharing_script import SHARING

CLAIM_PREFIX = "triptych:claim:"  # by worker: what its last claim took
DEAD = "dead"  # stands there instead of a worker whose jobs were given to others
_CLAIMED_BYTES = 64 * 2**20  # of inputs; other clients wait while such a reply is made
_WITHDRAWN_AT_ONCE = 1000  # jobs past their deadline

# ARGV: task, worker, lease_s, ttl_s, the time in RQ's form, the claim's token, max_jobs,
# rows_of_new_group, the number of groups, for each its name and room, then models. Returns the
# records that run now, and the other models that wait. A worker that lost the reply may send it
# again: the same token gives the same records.
CLAIM = (
    ALLOW_OOM
    + SHARING
    + f"""
local task, worker, lease_s, ttl_s, at = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local token, max_jobs, rows_of_new_group = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local claim_key, first_model = '{CLAIM_PREFIX}' .. worker, 10 + 2 * ARGV[9]
local room, num_full, is_ours = {{}}, 0, {{}}
for i = 10, first_model - 1, 2 do
  room[ARGV[i]] = tonumber(ARGV[i + 1])
  if room[ARGV[i]] < 1 then num_full = num_full + 1 end
end
for i = first_model, #ARGV do is_ours[ARGV[i]] = true end
local records, taken, first_id, num_bytes = {{}}, {{token}}, nil, 0
local leaving, places, left, turns = {{}}, {{}}, {{}}, {{}}
local clocks = {{}}  -- by model, by flow: what is written in the end

local function give(id, attempt)
  lease(id, task, attempt, lease_s)
  records[#records + 1] = {{id, attempt, unpack(redis.call('HMGET', record_key(id),
    'job', 'group', 'num_rows', 'num_steps', 'started_at', 'inputs'))}}
  first_id = first_id or id
end

local function give_again(given)
  for id, attempt in string.gmatch(given, ' (%S+) (%d+)') do
    if running(record_key(id), attempt) then give(id, attempt) end
  end
end

-- Most jobs share their run with none, and need not be asked who does.
local function start(id, attempt, may_be_shared)
  if may_be_shared then
    set_fields(id, 'state', 'running', 'attempt', attempt, 'worker', worker, 'step', 0,
      'started_at', now_text)
    emit(id, 'started', 'attempt', attempt)
  else
    redis.call('HSET', record_key(id), 'state', 'running', 'attempt', attempt, 'worker', worker,
      'step', 0, 'started_at', now_text)
    emit_alone(id, 'started', 'attempt', attempt)
  end
  redis.call('HSET', rq_job_key(id), 'status', 'started', 'started_at', at, 'last_heartbeat', at,
    'worker_name', worker)
  taken[#taken + 1] = id .. ' ' .. attempt
  give(id, attempt)
end

-- The group of the least turn of a model that has room. Of one more than are full, one is not.
local function first_group(model)
  if rows_of_new_group < 1 then
    local first, least
    for group, rows in pairs(room) do
      local turn = rows >= 1 and tonumber(redis.call('ZSCORE', groups_key(task, model), group))
      if turn and (not least or turn < least) then first, least = group, turn end
    end
    return first
  end
  for _, group in ipairs(redis.call('ZRANGE', groups_key(task, model), 0, num_full)) do
    if (room[group] or 1) >= 1 then return group end
  end
end

-- Where other groups have served its caller since a job became the first here, its turn is later.
local function set_turn(entry, turn, offset, model, group)
  redis.call('ZADD', heads_key(task, group), exact(turn - offset), entry)
  update_group(offset, task, model, group)
end

local function clock_of(model, flow, group)
  local clock = clocks[model] or {{virtual = 0, flows = {{}}, offsets = {{}}}}
  clocks[model] = clock
  if not clock.flows[flow] or not clock.offsets[group] then
    local virtual, offset, num, served, last, longest = read_clock(task, model, flow, group)
    clock.longest = longest
    clock.virtual = math.max(clock.virtual, virtual)
    clock.offsets[group] = clock.offsets[group] or offset
    clock.flows[flow] = clock.flows[flow] or {{num = num, served = served, last = last}}
  end
  return clock, clock.flows[flow]
end

local function write_clocks()
  for model, clock in pairs(clocks) do
    if redis.call('EXISTS', groups_key(task, model)) == 1 then
      for name, flow in pairs(clock.flows) do
        write_clock(task, model, name, clock.virtual, flow.num, flow.served, flow.last)
      end
    end
  end
  clocks = {{}}
end

local function forget_deleted(entry, id, model, group)
  forget(entry, task, model, group)
  local sharers = redis.call('SMEMBERS', sharers_key(id))
  redis.call('DEL', sharers_key(id))
  run_again(sharers, id, task, ttl_s)
end

-- Takes an entry out of what says who is next; out of the rest many go in one step, in the end.
local function leave(id, flow, caller, entry, place, clock, model, group)
  leaving[#leaving + 1], places[id] = id, place
  left[caller] = (left[caller] or 0) + 1
  turns[model] = turns[model] or {{gone = {{}}, new = {{}}}}
  table.insert(turns[model].gone, entry)
  turns[model].new[entry] = nil
  local following, turn = leave_flow(entry, flow, clock.flows[flow].served, clock.offsets[group],
    task, model, group)
  if following then turns[model].new[following] = turn end
end

local function leave_in_the_end()
  write_clocks()
  if #leaving == 0 then return end
  leave_waiting(task, leaving, places)
  for caller, num in pairs(left) do count_waiting(task, caller, -num) end
  for model, changed in pairs(turns) do
    redis.call('ZREM', turns_key(task, model), unpack(changed.gone))
    for entry, turn in pairs(changed.new) do
      redis.call('ZADD', turns_key(task, model), 'XX', exact(turn), entry)
    end
  end
end

-- Takes the next job of a group, or ends it where it is too late. Returns the work that this is, 0
-- where none was taken, or nil, leaving it where it is, for one whose inputs are too large beside
-- the others'.
local function take(model, group)
  local entry, turn = unpack(redis.call('ZRANGE', heads_key(task, group), 0, 0, 'WITHSCORES'))
  local id, priority, caller = parts_of(entry)
  local flow = priority .. ':' .. caller
  local state, deadline_at, num_rows, attempt, place, cost, fingerprint =
    unpack(redis.call('HMGET', record_key(id), 'state', 'deadline_at', 'num_rows', 'attempt',
      'place', 'cost', 'fingerprint'))
  local is_late = deadline_at and tonumber(deadline_at) <= now
  if not state or is_late then
    write_clocks()
    if is_late then
      end_waiting(id, task, 'expired', ttl_s)
    else
      forget_deleted(entry, id, model, group)
    end
    return 0
  end
  local work, clock, its_flow = work_of(cost, priority), clock_of(model, flow, group)
  turn = turn + clock.offsets[group]
  if attempt == '0' and its_flow.served + work > turn then
    set_turn(entry, its_flow.served + work, clock.offsets[group], model, group)
    return 0
  end
  if task ~= 'images' then
    num_bytes = num_bytes + redis.call('HSTRLEN', record_key(id), 'inputs')
  end
  if #records > 0 and num_bytes > {_CLAIMED_BYTES} then return nil end
  room[group] = (room[group] or rows_of_new_group) - (tonumber(num_rows) or 1)
  if room[group] < 1 then num_full = num_full + 1 end
  local before = clock.offsets[group]
  local offset = put_off(turn, clock.virtual, clock.longest, before, task, model, group)
  turn, clock.offsets[group] = turn + offset - before, offset
  clock.virtual = math.max(clock.virtual, turn)
  its_flow.num, its_flow.served = its_flow.num - 1, math.max(its_flow.served, turn)
  leave(id, flow, caller, entry, place, clock, model, group)
  start(id, tostring((tonumber(attempt) or 0) + 1), fingerprint)
  return work
end

-- Of our models that wait the work taken of them and the first groups; the others in their order.
local waiting, others = {{}}, {{}}
local models = redis.call('ZRANGE', models_key(task), 0, -1, 'WITHSCORES')
for i = 1, #models, 2 do
  if is_ours[models[i]] then
    waiting[#waiting + 1] =
      {{name = models[i], work = tonumber(models[i + 1]), group = first_group(models[i])}}
  else
    others[#others + 1] = models[i]
  end
end

local function next_model()
  local next
  for _, model in ipairs(waiting) do
    if model.group and (not next or model.work < next.work) then next = model end
  end
  return next
end

local function take_what_there_is_room_for()
  local virtual = tonumber(redis.call('GET', virtual_key(task)) or 0)
  for _ = 1, max_jobs + {_WITHDRAWN_AT_ONCE} do
    local model = #records < max_jobs and next_model()
    local work = model and take(model.name, model.group)
    if not work then break end
    if work > 0 then
      virtual = math.max(virtual, model.work)
      model.work = virtual + work
    end
    model.group = first_group(model.name)
  end
  leave_in_the_end()
  if #leaving == 0 or redis.call('EXISTS', models_key(task)) == 0 then return end
  redis.call('SET', virtual_key(task), exact(virtual))
  for _, model in ipairs(waiting) do
    redis.call('ZADD', models_key(task), 'XX', exact(model.work), model.name)
  end
end

local given = redis.call('GET', claim_key)
if given and string.match(given, '^%S+') == token then
  give_again(given)
elseif given ~= '{DEAD}' then
  take_what_there_is_room_for()
  -- without room it is only asked what the token has taken: if that claim comes after this, nothing
  if #taken > 1 or max_jobs < 1 then
    redis.call('SET', claim_key, table.concat(taken, ' '), 'PX', math.ceil(1000 * lease_s))
  end
end
if first_id and redis.call('EXISTS', rq_worker_key(worker)) == 1 then
  redis.call('HSET', rq_worker_key(worker), 'state', 'busy', 'current_job_working_time', 0)
  redis.call('HSETNX', rq_worker_key(worker), 'current_job', first_id)
end
return {{records, others}}
"""
)
