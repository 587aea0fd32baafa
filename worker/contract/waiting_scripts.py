"""How jobs wait, and who is next: what the scripts that queue, take and withdraw jobs share.

The order is self-clocked fair queueing (Golestani, "A Self-Clocked Fair Queueing Scheme for
Broadband Applications", INFOCOM 1994), of each model by itself. A flow is the waiting jobs of one
caller and priority in one group; a group is what may share a forward (see `submission.group_of`).
Time is work that was begun: `virtual` is the largest turn that was taken. Of each flow only the
first job has a turn, which it gets when it becomes the first:

    turn = start + cost / weight

It starts at the turn of the one before it, or at `virtual` where none was. The least turn of the
groups that there is room for is next. So who sends many jobs waits for itself, who comes with one
goes between them, and a job that is withdrawn costs its caller nothing. Where a caller waits in
several groups, it starts not before the turn of its last job taken of any. A group that had no room
for long has saved no more up than the work of the longest job: it is put off as a whole, by its
offset. Within a flow the least

    own = virtual + cost / weight

is first, `virtual` as the job came: shortest first, and a long one is no more overtaken once
`virtual` has grown by its cost. A job that is put back goes before all others.

Turns of different models are never compared. Which model is next goes by the work taken of it, the
least first (start-time fair queueing); one that comes starts where the last one that was taken did.

A job's place is told by the turn that is expected for it, behind those of its flow; it is made true
when the job becomes the first. Per task there are, by key:

    waiting:TASK            ids, by the time at which they were created: the oldest
    num_waiting:TASK        how many of each caller wait, or share a run, and of all
    models:TASK             models that jobs wait for, by the work taken of them
    virtual:TASK            of the model that was taken last, that work
    groups:TASK:MODEL       groups of one model, by their least turn
    heads:TASK:GROUP        the first entry of each flow of one group, by turn less the offset
    flow:TASK:FLOW:GROUP    the entries of one flow, by own
    clock:TASK:MODEL        virtual, the longest work, the offsets of groups, and of each priority
                            and caller that waits how many do, the turn of the last that was taken,
                            and the one that the last to come can expect
    turns:TASK:MODEL        entries, by expected turn: what stands before a job
    wake:TASK               a stream of one entry while jobs wait, for workers to block on

None is left when nothing waits. An entry is the time of arrival, the id, the priority and the
caller, so of equal tags the first to come is the first. RQ's list of the queue is kept equal to
the set of those who wait, for RQ's tools; nothing is taken from it. Its order means nothing: who
leaves is replaced by the last, which costs the same at any length.
"""

from typing import Final

from rq.queue import Queue

from worker.contract.jobs import Priority
from worker.contract.script_prelude import (
    DEADLINES_KEY,
    EVENTS_PREFIX,
    PRELUDE,
    QUEUE_NAME_PREFIX,
    QUEUE_PREFIX,
    RQ_FAILURE_TTL_S,
    RQ_RESULT_TTL_S,
    WAITING_PREFIX,
)

RQ_FUNCTION = "triptych.job"  # what RQ shows; there is no such function, and nothing looks for it
WAKE_PREFIX = "triptych:wake:"
WEIGHTS: Final[dict[Priority, float]] = {"high": 8, "normal": 1, "low": 0.125}
_MOST_OF_ALL = 4  # times the depth: as many jobs wait at most, however many callers there are
_ARRIVAL_LENGTH = len("1795707488.306123")  # until the year 2286
_WEIGHTS_IN_LUA = ", ".join(f"{priority} = {weight}" for priority, weight in WEIGHTS.items())

WAITING = (
    PRELUDE
    + f"""
local weights = {{{_WEIGHTS_IN_LUA}}}

local function queue_key(task)
  return '{QUEUE_PREFIX}' .. task
end

local function waiting_key(task)
  return '{WAITING_PREFIX}' .. task
end

local function num_waiting_key(task)
  return 'triptych:num_waiting:' .. task
end

local function models_key(task)
  return 'triptych:models:' .. task
end

local function virtual_key(task)
  return 'triptych:virtual:' .. task
end

local function groups_key(task, model)
  return 'triptych:groups:' .. task .. ':' .. model
end

local function heads_key(task, group)
  return 'triptych:heads:' .. task .. ':' .. group
end

local function flow_key(task, flow, group)
  return 'triptych:flow:' .. task .. ':' .. flow .. ':' .. group
end

local function clock_key(task, model)
  return 'triptych:clock:' .. task .. ':' .. model
end

local function turns_key(task, model)
  return 'triptych:turns:' .. task .. ':' .. model
end

local function wake_key(task)
  return '{WAKE_PREFIX}' .. task
end

-- The id, the priority and the caller; the last two are the flow.
local function parts_of(entry)
  return string.match(entry, '^([^:]+):(%a+):(.*)$', {_ARRIVAL_LENGTH + 1})
end

-- A number that is read back as it was.
local function exact(number)
  return string.format('%.17g', number)
end

-- The virtual work of a job; none where somebody has deleted its record.
local function work_of(cost, priority)
  return tonumber(cost or 0) / weights[priority]
end

-- One job of a caller more, or less, that waits or shares a run.
local function count_waiting(task, caller, num)
  local key = num_waiting_key(task)
  if redis.call('HINCRBY', key, ':' .. caller, num) <= 0 then
    redis.call('HDEL', key, ':' .. caller)
  end
  if redis.call('HINCRBY', key, 'all', num) <= 0 then redis.call('HDEL', key, 'all') end
end

-- Whether no more of a caller's jobs may wait, how many do of all, and how many of its own. Where
-- as many wait as may, who has less than its share still gets in.
local function is_full(task, caller, max_depth)
  local key = num_waiting_key(task)
  local counts = redis.call('HMGET', key, 'all', ':' .. caller)
  local all, mine = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
  if all < max_depth then return false, all, mine end
  local num_callers = redis.call('HLEN', key) - 1 + (mine == 0 and 1 or 0)
  return all >= {_MOST_OF_ALL} * max_depth or mine * num_callers >= max_depth, all, mine
end

-- What the clock of a model says of a group, and of a caller's jobs of one priority.
local function read_clock(task, model, flow, group)
  local virtual, offset, num, served, last, longest = unpack(redis.call('HMGET',
    clock_key(task, model), 'virtual', 'offset:' .. group, 'num:' .. flow, 'served:' .. flow,
    'last:' .. flow, 'longest'))
  return tonumber(virtual or 0), tonumber(offset or 0), tonumber(num or 0), tonumber(served or 0),
    tonumber(last or 0), tonumber(longest or 0)
end

-- The turn that a job which comes can expect.
local function expected_turn(task, model, caller, priority, cost)
  local virtual, _, _, _, last = read_clock(task, model, priority .. ':' .. caller, '')
  return math.max(virtual, last) + work_of(cost, priority)
end

-- How many of its model stand before a job that waits, or before the one whose run it shares.
local function position(id)
  local task, model, entry, leader = unpack(redis.call('HMGET', record_key(id),
    'task', 'model', 'entry', 'shares'))
  if leader then entry = redis.call('HGET', record_key(leader), 'entry') end
  return task and entry and redis.call('ZRANK', turns_key(task, model), entry)
end

-- Wakes who waits for jobs, where these are the first that wait; RQ's tools find the queue.
local function add_group(task, model)
  local virtual = redis.call('GET', virtual_key(task)) or 0
  if redis.call('ZADD', models_key(task), 'NX', virtual, model) == 1 and
      redis.call('EXISTS', wake_key(task)) == 0 then
    redis.call('XADD', wake_key(task), '1-1', 'jobs', 'wait')
    redis.call('SADD', '{Queue.redis_queues_keys}', queue_key(task))
  end
end

-- Where a group stayed behind, as there was no room for it, all of it is put off: by its offset,
-- which is returned.
local function put_off(least, virtual, longest, offset, task, model, group)
  local late = virtual - longest - least
  if late <= 0 then return offset end
  redis.call('HSET', clock_key(task, model), 'offset:' .. group, exact(offset + late))
  redis.call('ZADD', groups_key(task, model), exact(least + late), group)
  return offset + late
end

-- Makes an entry the first of its flow, instead of the one that was: it starts where that one did.
local function put_first(entry, instead_of, turn, work, offset, task, model, group)
  local heads = heads_key(task, group)
  local its_turn = instead_of and redis.call('ZSCORE', heads, instead_of)
  if its_turn then
    redis.call('ZREM', heads, instead_of)
    local id, priority = parts_of(instead_of)
    local its_work = work_of(redis.call('HGET', record_key(id), 'cost'), priority)
    turn = math.min(turn, its_turn + offset - its_work + work)
  end
  redis.call('ZADD', heads, exact(turn - offset), entry)
  if redis.call('ZADD', groups_key(task, model), 'LT', exact(turn), group) == 1 then
    add_group(task, model)
  end
  return turn
end

-- Lets a queued job wait, by what its record says. One that waited before has paid for its turn.
-- Returns how many stand before it.
local function put_in_queue(id)
  local key = record_key(id)
  local task, model, group, caller, created_at, cost, priority, entry = unpack(redis.call('HMGET',
    key, 'task', 'model', 'group', 'caller', 'created_at', 'cost', 'priority', 'entry'))
  local flow = priority .. ':' .. caller
  local virtual, offset, num, _, last, longest = read_clock(task, model, flow, group)
  local turn, own, work = virtual, 0, 0
  if not entry then
    work = work_of(cost, priority)
    entry, turn, own = now_text .. id .. ':' .. flow, virtual + work, virtual + work
    last = math.max(virtual, last) + work
  end
  redis.call('HSET', clock_key(task, model), 'num:' .. flow, num + 1, 'last:' .. flow, exact(last),
    'longest', exact(math.max(longest, work)))
  redis.call('ZADD', waiting_key(task), created_at, id)
  redis.call('ZADD', flow_key(task, flow, group), exact(own), entry)
  local first, second = unpack(redis.call('ZRANGE', flow_key(task, flow, group), 0, 1))
  local expected = last
  if first == entry then
    local least = redis.call('ZSCORE', groups_key(task, model), group)
    if least then
      offset = put_off(tonumber(least), virtual, longest, offset, task, model, group)
    end
    expected = put_first(entry, second, turn, work, offset, task, model, group)
  end
  redis.call('ZADD', turns_key(task, model), exact(expected), entry)
  local place = redis.call('RPUSH', queue_key(task), id) - 1
  redis.call('HSET', key, 'entry', entry, 'place', place)
  count_waiting(task, caller, 1)
  return redis.call('ZRANK', turns_key(task, model), entry)
end

-- Takes jobs, given with their places, out of RQ's list: the last one takes the place of each.
-- Where somebody else has moved entries there, the list is searched.
local function leave_rq_list(task, ids, places)
  local queue = queue_key(task)
  if redis.call('LLEN', queue) == #ids then
    redis.call('DEL', queue)
    return
  end
  for _, id in ipairs(ids) do
    local last = redis.call('RPOP', queue)
    if last and last ~= id then
      local place = places[id]
      local is_known = places[last] or redis.call('HGET', record_key(last), 'state') == 'queued'
      if place and is_known and redis.call('LINDEX', queue, place) == id then
        redis.call('LSET', queue, place, last)
        if places[last] then
          places[last] = place
        else
          redis.call('HSET', record_key(last), 'place', place)
        end
      else
        redis.call('RPUSH', queue, last)
        redis.call('LREM', queue, 1, id)
      end
    end
  end
end

-- Takes jobs out of all that says how many wait.
local function leave_waiting(task, ids, places)
  leave_rq_list(task, ids, places)
  redis.call('ZREM', waiting_key(task), unpack(ids))
end

-- Where a model had one group more than jobs wait for now.
local function remove_group(task, model, group)
  redis.call('ZREM', groups_key(task, model), group)
  redis.call('HDEL', clock_key(task, model), 'offset:' .. group)
  if redis.call('EXISTS', groups_key(task, model)) == 1 then return end
  redis.call('DEL', clock_key(task, model))
  redis.call('ZREM', models_key(task), model)
  if redis.call('EXISTS', models_key(task)) == 0 then
    redis.call('DEL', wake_key(task), virtual_key(task))
  end
end

-- Keeps the least turn of a group true.
local function update_group(offset, task, model, group)
  local first = redis.call('ZRANGE', heads_key(task, group), 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', groups_key(task, model), exact(first[2] + offset), group)
  else
    remove_group(task, model, group)
  end
end

-- Takes an entry out of all that says who is next. Returns the one that is the first of its flow
-- instead, if there is one, and its turn, which begins at `start`.
local function leave_flow(entry, flow, start, offset, task, model, group)
  local key = flow_key(task, flow, group)
  redis.call('ZREM', key, entry)
  if redis.call('ZREM', heads_key(task, group), entry) == 0 then return end
  local following, turn = redis.call('ZRANGE', key, 0, 0)[1], nil
  if following then
    local id, priority = parts_of(following)
    turn = start + work_of(redis.call('HGET', record_key(id), 'cost'), priority)
    redis.call('ZADD', heads_key(task, group), exact(turn - offset), following)
  end
  update_group(offset, task, model, group)
  return following, turn
end

-- Where no more jobs of a caller and priority wait, nothing is kept of them.
local function write_clock(task, model, flow, virtual, num, served, last)
  local clock = clock_key(task, model)
  if num > 0 then
    redis.call('HSET', clock, 'virtual', exact(virtual), 'num:' .. flow, num,
      'served:' .. flow, exact(served), 'last:' .. flow, exact(last))
  else
    redis.call('HSET', clock, 'virtual', exact(virtual))
    redis.call('HDEL', clock, 'num:' .. flow, 'served:' .. flow, 'last:' .. flow)
  end
end

-- Takes a job that waits, and will not run, out of the queue.
local function leave_queue(entry, place, cost, task, model, group)
  local id, priority, caller = parts_of(entry)
  local flow = priority .. ':' .. caller
  local virtual, offset, num, served, last = read_clock(task, model, flow, group)
  local work = work_of(cost, priority)
  write_clock(task, model, flow, virtual, num - 1, served, last - work)
  local its_turn = redis.call('ZSCORE', heads_key(task, group), entry) or 0
  local start = its_turn + offset - work
  local following, turn = leave_flow(entry, flow, start, offset, task, model, group)
  redis.call('ZREM', turns_key(task, model), entry)
  if following then redis.call('ZADD', turns_key(task, model), exact(turn), following) end
  leave_waiting(task, {{id}}, {{[id] = place}})
  count_waiting(task, caller, -1)
end

local function withdraw(id)
  local task, model, group, entry, place, cost, attempt = unpack(redis.call('HMGET',
    record_key(id), 'task', 'model', 'group', 'entry', 'place', 'cost', 'attempt'))
  if attempt ~= '0' then cost = 0 end  -- it was put back, and its turn has been paid for
  leave_queue(entry, place, cost, task, model, group)
end

-- Takes out of the queue what is left of a job whose record somebody has deleted.
local function forget(entry, task, model, group)
  local id = parts_of(entry)
  leave_queue(entry, nil, nil, task, model, group)
  redis.call('DEL', rq_job_key(id), '{EVENTS_PREFIX}' .. id)
  redis.call('ZREM', '{DEADLINES_KEY}', id)
end

-- Puts a job that ran back among those who wait.
local function put_back(id, task)
  set_fields(id, 'state', 'queued', 'step', 0)
  clear_fields(id, 'started_at', 'worker')
  redis.call('ZREM', running_key(task), id)
  redis.call('ZREM', failed_key(task), id)
  redis.call('HSET', rq_job_key(id), 'status', 'queued', 'started_at', '', 'ended_at', '',
    'worker_name', '')
  redis.call('PERSIST', rq_job_key(id))
  emit(id, 'queued', 'position', put_in_queue(id))
end

-- Notes in the record of a running job how this attempt ends, and in RQ's books that it does.
local function end_attempt(id, task, reason)
  local attempt, worker, started_at, past = unpack(redis.call('HMGET', record_key(id),
    'attempt', 'worker', 'started_at', 'past_attempts'))
  local ended = string.format(
    '{{"attempt":%s,"worker":%s,"started_at":%s,"ended_at":%s,"end":"%s"}}',
    attempt, cjson.encode(worker), started_at, now_text, reason)
  past = past and string.sub(past, 1, -2) .. ',' .. ended .. ']' or '[' .. ended .. ']'
  set_fields(id, 'past_attempts', past)
  redis.call('ZREM', started_key(task), id .. ':' .. attempt)
end

-- RQ's books of a job that waits.
local function book_waiting(id, task, created_at, enqueued_at)
  redis.call('HSET', rq_job_key(id), 'status', 'queued', 'origin', '{QUEUE_NAME_PREFIX}' .. task,
    'description', task .. ' ' .. id, 'data', '["{RQ_FUNCTION}", null, ["' .. id .. '"], {{}}]',
    'created_at', created_at, 'enqueued_at', enqueued_at, 'timeout', -1,
    'result_ttl', {RQ_RESULT_TTL_S}, 'failure_ttl', {RQ_FAILURE_TTL_S})
end
"""
)
