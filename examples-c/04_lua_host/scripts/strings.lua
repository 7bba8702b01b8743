-- Strings: building, splitting, replacing and joining text, as a template engine, a log reader and a tokenizer do it.
-- Allocation: strings of all lengths, short ones interned, buffers that double, tables as indexes of words.

---- a template engine: gsub with a function, nested lookups

local function render(template, data)
  return (template:gsub("{{%s*([%w_.]+)%s*}}", function(path)
    local value = data
    for name in path:gmatch("[^.]+") do value = value[name] end
    return tostring(value)
  end))
end

local template = [[
Dear {{ user.name }},
your order {{ id }} of {{ amount }} pieces leaves {{ where.town }} ({{ where.country }}) on day {{ day }}.
]]
local letters = {}
for i = 1, 1500 do
  letters[i] = render(template, {
    id = ("A-%05d"):format(i), amount = i % 12 + 1, day = i % 365,
    user = { name = "customer " .. i }, where = { town = "Ghent", country = "BE" },
  })
end
local post = table.concat(letters, "--\n")
assert(select(2, post:gsub("leaves Ghent %(BE%)", "")) == 1500)
assert(letters[77]:find("order A-00077 of 6 pieces", 1, true) and not post:find("{{", 1, true))

---- a log reader: lines into fields, fields into counts

local levels, lines = { "INFO", "WARN", "ERROR" }, {}
for i = 1, 4000 do
  lines[i] = ("2026-01-%02d %02d:%02d:%02d [%s] worker-%d: request /item/%d took %d ms"):format(
    i % 28 + 1, i % 24, i % 60, (i * 7) % 60, levels[i % 3 + 1], i % 8, i % 500, (i * 13) % 900)
end
local log = table.concat(lines, "\n")
local by_level, by_worker, slow, total = {}, {}, {}, 0
for line in log:gmatch("[^\n]+") do
  local day, level, worker, path, ms = line:match("^(%S+) %S+ %[(%u+)%] (worker%-%d+): request (%S+) took (%d+) ms$")
  assert(day, "a line that does not match: " .. line)
  by_level[level] = (by_level[level] or 0) + 1
  by_worker[worker] = (by_worker[worker] or "") .. (#(by_worker[worker] or "") < 400 and path or "")
  total = total + tonumber(ms)
  if tonumber(ms) > 850 then slow[#slow + 1] = day .. " " .. path end
end
assert(by_level.INFO + by_level.WARN + by_level.ERROR == 4000 and by_level.WARN == 1334)
table.sort(slow)

---- a tokenizer and an index of words

local words, order = {}, {}
for word in post:gmatch("%a+") do
  word = word:lower()
  local entry = words[word]
  if not entry then
    entry = { word = word, count = 0 }
    words[word], order[#order + 1] = entry, entry
  end
  entry.count = entry.count + 1
end
table.sort(order, function(a, b) return a.count > b.count or a.count == b.count and a.word < b.word end)
assert(words.customer.count == 1500 and words.order.count == 1500)

---- appending piece by piece: the slow way that real scripts use, and reversal and repetition on top

local text = ""
for i = 1, 1200 do text = text .. string.char(97 + i % 26) .. i end
assert(#text == 1200 + 9 + 2 * 90 + 3 * 900 + 4 * 201)
assert(text:reverse():reverse() == text and text:upper():lower() == text)
local wide = ("<%s>"):rep(50, " "):format(table.unpack(setmetatable({}, { __index = function(_, i) return text:sub(i, i + 40) end }), 1, 50))
assert(select(2, wide:gsub("<", "")) == 50)

---- packing: binary strings

local packed = {}
for i = 1, 1000 do packed[i] = string.pack("<I4 d s2", i, i / 8, "record " .. i) end
local binary, at, sum = table.concat(packed), 1, 0
for i = 1, 1000 do
  local n, x, name
  n, x, name, at = string.unpack("<I4 d s2", binary, at)
  assert(n == i and x == i / 8 and name == "record " .. i)
  sum = sum + n
end
assert(at == #binary + 1 and sum == 500500)

return ("%d letters, %d log lines taking %d ms, %d slow, %d words, %d bytes packed"):format(
  #letters, #lines, total, #slow, #order, #binary)
