-- serve.lua - a server in Lua: answers each line of its input with its length, and keeps a cache of 100 answers. What leaks is
-- the C module.
local leak = require "lua_leak"
local cache, turn = {}, 0
for line in io.lines() do
  turn = turn + 1
  cache[turn % 100] = line:rep(3)
  io.write(leak.forget(line:rep(20)), "\n")
  io.flush()
end
