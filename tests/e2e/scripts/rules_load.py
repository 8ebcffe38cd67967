"""Several processes that connect to servers in turn, until standard input ends: `rules_load.py PROCESSES NAME=HOST=PORT...`.
Says how often each name was `direct`, `captured`, or which error, as JSON.
"""
import collections
import json
import os
import sys

from client import attempt

servers = [server.split("=") for server in sys.argv[2:]]
children = []
for _ in range(int(sys.argv[1])):
    told, tell = os.pipe()
    ended, end = os.pipe()
    if os.fork() == 0:
        os.close(end)
        os.close(told)
        os.set_blocking(ended, False)
        counts = collections.Counter()
        while True:
            for name, host, port in servers:
                counts[f"{name} {attempt(host, int(port))}"] += 1
            try:
                os.read(ended, 1)
                break
            except BlockingIOError:
                pass
        os.write(tell, json.dumps(counts).encode())
        os._exit(0)
    os.close(ended)
    os.close(tell)
    children.append((told, end))

print("under way", flush=True)
sys.stdin.read()
for _, end in children:
    os.close(end)
total = collections.Counter()
for told, _ in children:
    with os.fdopen(told) as output:
        total.update(json.load(output))
print(json.dumps(total))
