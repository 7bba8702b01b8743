-- States: interpreters inside the interpreter, each with its own heap, made and closed by the host; only strings pass.
-- Allocation: a whole runtime (libraries, string table, compiled code) built up and torn down again and again.

local child = [[
  local text = ...
  local counts, order = {}, {}
  for word in text:gmatch("%S+") do
    if not counts[word] then order[#order + 1] = word end
    counts[word] = (counts[word] or 0) + 1
  end
  table.sort(order)
  for i, word in ipairs(order) do order[i] = word .. "=" .. counts[word] end
  return table.concat(order, " ")
]]

local animals = { "cat", "dog", "owl", "fox", "bee" }
local total, bytes = 0, 0
for round = 1, 60 do
  local words = {}
  for i = 1, 200 do words[i] = animals[(i * round) % #animals + 1] end
  local result = host.run_state(child, table.concat(words, " "))
  local sum = 0
  for n in result:gmatch("=(%d+)") do sum = sum + tonumber(n) end
  assert(sum == 200, result)
  total, bytes = total + 1, bytes + #result
end

-- A state inside a state inside a state.
local nest = [[
  local depth, source = (...):match("^(%d+) (.*)$")
  depth = tonumber(depth)
  if depth == 0 then return "bottom" end
  return depth .. ">" .. host.run_state(source, (depth - 1) .. " " .. source)
]]
assert(host.run_state(nest, "5 " .. nest) == "5>4>3>2>1>bottom")

-- An error in a child becomes an error here, and its state is closed all the same.
local ok, message = pcall(host.run_state, "error('on purpose', 0)", "")
assert(not ok and message == "on purpose")
ok, message = pcall(host.run_state, "return (", "")
assert(not ok and message:find("^child:1:"))

-- A child that asks for more than its budget gets an error, not the memory of its neighbours.
ok, message = pcall(host.run_state, "return #string.rep('x', 1 << 29)", "")
assert(not ok and message == "not enough memory")

return ("%d states, %d bytes of results, errors stay inside"):format(total, bytes)
