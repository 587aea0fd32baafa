"""A request that is sent again is worked for once: what the scripts know of idempotency keys.

A key stands for a job and for what was asked, as a digest. Who sends it again is attached to that
job, whatever its state; where its record is gone, the key is free. The record names its key and, in
`waiters`, the requests that wait for its end, each by the id of the job that it came with. One
whose client leaves takes itself out, and the last one cancels the job and frees the key: it has
broken its connection, and what it sends next is to run. `waiters` is absent where somebody was told
to come back for the job, and where it is over: then nobody who leaves cancels it. A job that is
canceled by name keeps its key. From an API process that was killed nobody leaves: what only its
clients waited for runs, until its deadline at the longest.
"""

# Comes after the prelude.
IDEMPOTENCY = """
local function idempotency_key(digest)
  return 'triptych:idempotency:' .. digest
end

-- The job that a key stands for, and what was asked for it; nothing where the key is free.
local function job_of_key(digest)
  local asked, id = string.match(redis.call('GET', idempotency_key(digest)) or '', '^(%x+) (.+)$')
  if id and redis.call('EXISTS', record_key(id)) == 1 then return id, asked end
end

-- Lets a key stand for a job as long as that has a record. `waiter` waits for its end, or '' will
-- come back.
local function hold_key(digest, asked, id, waiter, deadline_at, ttl_s)
  redis.call('SET', idempotency_key(digest), asked .. ' ' .. id,
    'EX', longest_s(deadline_at, ttl_s))
  redis.call('HSET', record_key(id), 'idempotency', digest)
  if waiter ~= '' then redis.call('HSET', record_key(id), 'waiters', waiter .. ' ') end
end

local function free_key(digest, id)
  if job_of_key(digest) == id then redis.call('DEL', idempotency_key(digest)) end
end

local function attach(id, waiter)
  local waiters = redis.call('HGET', record_key(id), 'waiters')
  if not waiters then return end
  if waiter == '' then
    redis.call('HDEL', record_key(id), 'waiters')
  elseif not string.find(waiters, waiter, 1, true) then
    redis.call('HSET', record_key(id), 'waiters', waiters .. waiter .. ' ')
  end
end

-- Takes one who waited out. Returns whether it was the only one that the job is for.
local function detach(id, waiter)
  local digest, waiters = unpack(redis.call('HMGET', record_key(id), 'idempotency', 'waiters'))
  if not digest then return true end
  if not waiters then return false end
  waiters = string.gsub(waiters, waiter .. ' ', '')
  redis.call('HSET', record_key(id), 'waiters', waiters)
  if waiters ~= '' then return false end
  free_key(digest, id)
  return true
end
"""
