-- Coroutines: generators, a pipeline, and a scheduler with tasks that send each other messages.
-- Allocation: thread objects with stacks of their own that grow, closures, short-lived tables as messages.

---- generators: permutations, each a copy

local function permutations(list)
  local function permute(n)
    if n == 0 then coroutine.yield(table.move(list, 1, #list, 1, {})) return end
    for i = 1, n do
      list[i], list[n] = list[n], list[i]
      permute(n - 1)
      list[i], list[n] = list[n], list[i]
    end
  end
  return coroutine.wrap(function() permute(#list) end)
end

local distinct, number = {}, 0
for p in permutations { 1, 2, 3, 4, 5, 6, 7 } do
  number = number + 1
  distinct[table.concat(p)] = true
end
local different = 0
for _ in pairs(distinct) do different = different + 1 end
assert(number == 5040 and different == 5040)

---- a pipeline: primes by a chain of filters, one coroutine for each prime

local function numbers(to)
  return coroutine.wrap(function() for n = 2, to do coroutine.yield(n) end end)
end
local function without(prime, source)
  return coroutine.wrap(function()
    for n in source do if n % prime ~= 0 then coroutine.yield(n) end end
  end)
end
local primes, source = {}, numbers(400)
while true do
  local prime = source()
  if not prime then break end
  primes[#primes + 1] = prime
  source = without(prime, source)
end
assert(#primes == 78 and primes[78] == 397)

---- a scheduler: clients ask, workers answer, tasks come and go, some end by an error and some are closed midway

local ready, mailbox, closed = {}, {}, 0
local function spawn(f, ...)
  local co = coroutine.create(f)
  mailbox[co] = {}
  ready[#ready + 1] = { co = co, args = table.pack(...) }
  return co
end
local function send(co, message)
  local box = mailbox[co]
  if box then box[#box + 1] = message end
end
local function receive()
  local box = mailbox[coroutine.running()]
  while #box == 0 do coroutine.yield() end
  return table.remove(box, 1)
end

local answers, failures = 0, 0
local function worker()
  local watch <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
  while true do
    local request = receive()
    if request.stop then return end
    if request.number % 50 == 0 then error({ reason = "cannot divide", from = request.from, id = request.id }) end
    local digits = {}
    for d in tostring(1000000 // request.number):gmatch("%d") do digits[#digits + 1] = tonumber(d) end
    send(request.from, { id = request.id, digits = digits })
  end
end

local workers = {}
for i = 1, 8 do workers[i] = spawn(worker) end
local function client(name, first, last)
  local me = coroutine.running()
  for n = first, last do
    send(workers[n % 8 + 1], { from = me, number = n, id = name .. ":" .. n })
    local answer = receive()
    assert(answer.id == name .. ":" .. n)
    if answer.failed then failures = failures + 1
    else assert(tonumber(table.concat(answer.digits)) == 1000000 // n) answers = answers + 1 end
  end
end
local clients, living = 12, 0
for c = 1, clients do
  spawn(function(...) client(...) living = living - 1 end, "client" .. c, c * 100, c * 100 + 120)
  living = living + 1
end

local turns = 0
while living > 0 do
  local turn = ready
  ready = {}
  for _, task in ipairs(turn) do
    turns = turns + 1
    local ok, problem = coroutine.resume(task.co, table.unpack(task.args, 1, task.args.n))
    task.args = { n = 0 }
    if not ok then
      assert(type(problem) == "table", problem)
      send(problem.from, { id = problem.id, failed = true })
      coroutine.close(task.co)
      for i, w in ipairs(workers) do
        if w == task.co then -- a new worker takes over the mail that is waiting
          workers[i] = spawn(worker)
          mailbox[workers[i]], mailbox[task.co] = mailbox[task.co], nil
        end
      end
    elseif coroutine.status(task.co) == "dead" then
      mailbox[task.co] = nil
    else
      ready[#ready + 1] = task
    end
  end
end
local stopped = 0
for _, w in ipairs(workers) do
  assert(coroutine.close(w))
  stopped = stopped + 1
end
assert(answers + failures == clients * 121 and closed == failures + stopped)

return ("%d permutations, %d primes, %d answers, %d failures, %d turns"):format(number, #primes, answers, failures, turns)
