"""Objects, dictionaries, strings, JSON: what a Python program allocates. objects.py ROUNDS"""

import json
import re
import sys


class Item:
    def __init__(self, number, tags):
        self.number = number
        self.name = "item %06d" % number
        self.tags = tags
        self.children = []


def build(count):
    items = [Item(i, ["tag%d" % (i % j + 1) for j in range(1, 5)]) for i in range(count)]
    for i, item in enumerate(items):
        items[i * 7 % count].children.append(item)
    return items


def index(items):
    by_tag = {}
    for item in items:
        for tag in item.tags:
            by_tag.setdefault(tag, set()).add(item.name)
    return by_tag


def texts(items):
    document = json.dumps([{"n": i.number, "name": i.name, "tags": i.tags} for i in items])
    back = json.loads(document)
    words = re.findall(r"item (\d+)", document)
    return len(document), len(back), sum(map(int, words))


total = 0
for round_ in range(int(sys.argv[1])):
    items = build(12000 + round_ % 3 * 1000)
    by_tag = index(items)
    total += sum(len(names) for names in by_tag.values()) + sum(texts(items))
    total += len(b"".join(bytes([i & 255]) * (i % 500) for i in range(4000)))
    total += sum(len(str(3**i)) for i in range(0, 600, 3))
    for item in items:
        item.children.clear()
print(total)
