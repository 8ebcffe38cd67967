"""One TCP connection: sends pseudo-random bytes, receives to the end, prints what went each way as hashes.

`connect HOST PORT SIZE ORDER SEED` or `listen HOST SIZE ORDER SEED`; the latter prints its port first.
ORDER: `send-first` (all out, half-close, then in), `receive-first` (in to the end, then out) or `together`.
"""
import hashlib
import random
import socket
import sys
import threading

PATIENCE = 60
CHUNK = 1 << 16


def send(s, size, seed, done):
    source, sent = random.Random(seed), hashlib.sha256()
    for start in range(0, size, CHUNK):
        piece = source.randbytes(min(CHUNK, size - start))
        sent.update(piece)
        s.sendall(piece)
    s.shutdown(socket.SHUT_WR)
    done["sent"] = f"{size}:{sent.hexdigest()}"


def receive(s, done):
    size, received = 0, hashlib.sha256()
    while piece := s.recv(CHUNK):
        size += len(piece)
        received.update(piece)
    done["received"] = f"{size}:{received.hexdigest()}"


def run(s, size, order, seed):
    s.settimeout(PATIENCE)
    done = {}
    parts = [lambda: send(s, size, seed, done), lambda: receive(s, done)]
    if order == "together":
        threads = [threading.Thread(target=part) for part in parts]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    else:
        for part in parts if order == "send-first" else reversed(parts):
            part()
    s.close()
    print(done["sent"], done["received"])


mode, host, *rest = sys.argv[1:]
if mode == "listen":
    with socket.create_server((host, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        listener.settimeout(PATIENCE)
        connection = listener.accept()[0]
else:
    connection = socket.create_connection((host, int(rest.pop(0))))
run(connection, int(rest[0]), rest[1], rest[2])
