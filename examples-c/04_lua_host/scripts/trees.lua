-- Trees: binary trees built whole and thrown away beside one that lives on, and a search tree (a treap) that grows and
-- shrinks. Allocation: very many small tables of the same size, freed by the collector in bursts.

local function build(depth)
  if depth == 0 then return {} end
  return { build(depth - 1), build(depth - 1) }
end

local function count(tree)
  if not tree[1] then return 1 end
  return 1 + count(tree[1]) + count(tree[2])
end

local keeper = build(15)
local nodes = 0
for depth = 4, 12, 4 do
  local trees = 1 << (14 - depth)
  for _ = 1, trees do
    local n = count(build(depth))
    assert(n == (1 << (depth + 1)) - 1)
    nodes = nodes + n
  end
end
assert(count(keeper) == (1 << 16) - 1, "the tree that lives on has changed")

---- a treap: insert, look up, delete, walk in order

local seed = 42
local function random()
  seed = (seed * 1103515245 + 12345) & 0x7fffffff
  return seed
end

local function rotate_right(node)
  local left = node.left
  node.left, left.right = left.right, node
  return left
end

local function rotate_left(node)
  local right = node.right
  node.right, right.left = right.left, node
  return right
end

local function insert(node, key, value)
  if not node then return { key = key, value = value, weight = random() } end
  if key == node.key then
    node.value = value
  elseif key < node.key then
    node.left = insert(node.left, key, value)
    if node.left.weight < node.weight then return rotate_right(node) end
  else
    node.right = insert(node.right, key, value)
    if node.right.weight < node.weight then return rotate_left(node) end
  end
  return node
end

local function delete(node, key)
  if not node then return nil end
  if key < node.key then
    node.left = delete(node.left, key)
  elseif key > node.key then
    node.right = delete(node.right, key)
  elseif not node.left then
    return node.right
  elseif not node.right then
    return node.left
  elseif node.left.weight < node.right.weight then
    node = rotate_right(node)
    node.right = delete(node.right, key)
  else
    node = rotate_left(node)
    node.left = delete(node.left, key)
  end
  return node
end

local function walk(node, visit)
  if not node then return end
  walk(node.left, visit)
  visit(node.key, node.value)
  walk(node.right, visit)
end

local root, size = nil, 10000
for i = 1, size do root = insert(root, (i * 7919) % 100003, "value " .. i) end
local seen, last = 0, -1
walk(root, function(key, value)
  assert(key > last and value:sub(1, 6) == "value ")
  seen, last = seen + 1, key
end)
assert(seen == size)
for i = 1, size, 2 do root = delete(root, (i * 7919) % 100003) end
seen = 0
walk(root, function(key, value)
  local i = tonumber(value:sub(7))
  assert(i % 2 == 0 and key == (i * 7919) % 100003)
  seen = seen + 1
end)
assert(seen == size // 2)

return ("%d nodes built, %d keys kept of %d"):format(nodes, seen, size)
