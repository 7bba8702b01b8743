-- JSON in plain Lua: decodes documents, changes them, encodes them again, and checks both ways.
-- Allocation: many short strings, small tables that grow, one larger string for each document.

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
local unescapes = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", n = "\n", r = "\r", t = "\t", b = "\b", f = "\f" }

local null = setmetatable({}, { __tostring = function() return "null" end })

---- encoding: pieces into a buffer, keys in order so that equal values give equal texts

local encode_value

local function encode_string(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function encode_object(object, out)
  local keys = {}
  for key in pairs(object) do keys[#keys + 1] = key end
  table.sort(keys)
  out[#out + 1] = "{"
  for i, key in ipairs(keys) do
    if i > 1 then out[#out + 1] = "," end
    out[#out + 1] = encode_string(key)
    out[#out + 1] = ":"
    encode_value(object[key], out)
  end
  out[#out + 1] = "}"
end

local function encode_array(array, out)
  out[#out + 1] = "["
  for i, value in ipairs(array) do
    if i > 1 then out[#out + 1] = "," end
    encode_value(value, out)
  end
  out[#out + 1] = "]"
end

function encode_value(value, out)
  local kind = type(value)
  if value == null then out[#out + 1] = "null"
  elseif kind == "string" then out[#out + 1] = encode_string(value)
  elseif kind == "number" then out[#out + 1] = math.type(value) == "integer" and tostring(value) or ("%.14g"):format(value)
  elseif kind == "boolean" then out[#out + 1] = tostring(value)
  elseif kind == "table" then
    if value[1] ~= nil or next(value) == nil then encode_array(value, out) else encode_object(value, out) end
  else error("cannot encode a " .. kind) end
end

local function encode(value)
  local out = {}
  encode_value(value, out)
  return table.concat(out)
end

---- decoding: a recursive descent over the text

local decode_value

local function fail(text, at, what) error(("byte %d of %d: %s"):format(at, #text, what), 0) end

local function decode_string(text, at)
  local pieces, from = nil, at + 1
  while true do
    local to = text:find('["\\]', from)
    if not to then fail(text, at, "a string without an end") end
    local piece = text:sub(from, to - 1)
    if text:sub(to, to) == '"' then
      if not pieces then return piece, to + 1 end
      pieces[#pieces + 1] = piece
      return table.concat(pieces), to + 1
    end
    pieces = pieces or {}
    pieces[#pieces + 1] = piece
    local code = text:sub(to + 1, to + 1)
    if code == "u" then
      local hex = text:match("^%x%x%x%x", to + 2) or fail(text, to, "a bad \\u")
      pieces[#pieces + 1] = utf8.char(tonumber(hex, 16))
      from = to + 6
    else
      pieces[#pieces + 1] = unescapes[code] or fail(text, to, "a bad escape")
      from = to + 2
    end
  end
end

local function decode_array(text, at)
  local array = {}
  at = text:match("^%s*()", at + 1)
  if text:sub(at, at) == "]" then return array, at + 1 end
  while true do
    array[#array + 1], at = decode_value(text, at)
    local mark
    mark, at = text:match("^%s*([,%]])()", at)
    if mark == "]" then return array, at end
    if not mark then fail(text, at or #text, "',' or ']' expected") end
  end
end

local function decode_object(text, at)
  local object = {}
  at = text:match("^%s*()", at + 1)
  if text:sub(at, at) == "}" then return object, at + 1 end
  while true do
    at = text:match('^%s*()"', at) or fail(text, at, "a key expected")
    local key
    key, at = decode_string(text, at)
    at = text:match("^%s*:()", at) or fail(text, at, "':' expected")
    object[key], at = decode_value(text, at)
    local mark
    mark, at = text:match("^%s*([,}])()", at)
    if mark == "}" then return object, at end
    if not mark then fail(text, at or #text, "',' or '}' expected") end
  end
end

local words = { ["true"] = true, ["false"] = false, ["null"] = null }

function decode_value(text, at)
  at = text:match("^%s*()", at)
  local c = text:sub(at, at)
  if c == '"' then return decode_string(text, at) end
  if c == "{" then return decode_object(text, at) end
  if c == "[" then return decode_array(text, at) end
  local number, after = text:match("^(-?%d+%.?%d*[eE]?[+-]?%d*)()", at)
  if number then return math.tointeger(number) or tonumber(number), after end
  local word
  word, after = text:match("^(%a+)()", at)
  if word and words[word] ~= nil then return words[word], after end
  fail(text, at, "a value expected")
end

local function decode(text)
  local value, at = decode_value(text, 1)
  if text:match("^%s*()", at) <= #text then fail(text, at, "text after the value") end
  return value
end

---- the work: an order book as a web service would answer it

local first = { "Ada", "Grace", "Barbara", "Edsger", "Niklaus", "Tony", "Dennis", "Ken" }
local goods = { "tea", "coffee", "rye bread", "cheese \"Comté\"", "olive\toil", "salt\\pepper" }

local function order(n)
  local lines, total = {}, 0
  for i = 1, 2 + n % 7 do
    local price = (n * 37 + i * 101) % 5000 + 99
    lines[i] = { item = goods[(n + i) % #goods + 1], count = i, price = price / 100, gift = i % 3 == 0 }
    total = total + i * price
  end
  return {
    id = ("order-%06d"):format(n),
    customer = { name = first[n % #first + 1], mail = first[n % #first + 1]:lower() .. n .. "@example.com", since = 1990 + n % 35 },
    lines = lines,
    total = total,
    note = n % 4 == 0 and null or ("line one\nline two of order " .. n),
    tags = { "web", n % 2 == 0 and "even" or "odd" },
  }
end

assert(encode(decode(' { "a" : [ 1 , -2.5 , true , null , "x\\u00e9\\n" ] , "b" : { } } ')) == '{"a":[1,-2.5,true,null,"xé\\n"],"b":[]}')
for _, bad in ipairs { "", "[1,", '{"a"}', '"x', "[1] 2", '{"a":tru}', '"\\q"' } do
  assert(not pcall(decode, bad), "accepted: " .. bad)
end

local documents, bytes, value = 0, 0, 0
for batch = 1, 2 do
  local orders = {}
  for n = 1, 150 do orders[n] = order(batch * 1000 + n) end
  local text = encode { batch = batch, orders = orders }
  local back = decode(text)
  assert(#back.orders == 150 and back.batch == batch)
  assert(encode(back) == text, "the second text differs from the first")
  for n, o in ipairs(back.orders) do
    assert(o.total == orders[n].total and o.lines[1].item == orders[n].lines[1].item)
    assert((o.note == null) == (orders[n].note == null))
    value = value + o.total
    o.paid = true
    o.note = null
  end
  local changed = decode(encode(back))
  assert(changed.orders[150].paid == true and changed.orders[1].note == null)
  documents, bytes = documents + 3, bytes + #text
end
return ("%d documents, %d bytes, value %d"):format(documents, bytes, value)
