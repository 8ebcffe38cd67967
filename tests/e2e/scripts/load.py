"""Clients of `harness/load.rs`, captured or through a proxy: `short HOST PORT PROXY THREADS PAUSE` makes one request after
the other in each thread, until standard input ends; `long HOST PORT PROXY COUNT` makes transfers that last until the
origin is told to end them, and says "under way" when each has begun. PROXY is HOST:PORT, or `-` for none.

Says what came of it as JSON.
"""
import hashlib
import json
import socket
import sys
import threading
import time

PATIENCE = 60

mode, host, port, proxy = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
to = (host, port) if proxy == "-" else (proxy.rsplit(":", 1)[0], int(proxy.rsplit(":", 1)[1]))
prefix = "" if proxy == "-" else f"http://{host}:{port}"
lock = threading.Lock()
failed = []


def fail(what, error):
    with lock:
        failed.append(f"{what}: {error!r}")


def ask(path):
    """A connection, what came behind the head, and the length that the head announces."""
    s = socket.create_connection(to, PATIENCE)
    s.sendall(f"GET {prefix}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        assert piece, f"an end in the head: {data!r}"
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return s, body, int(length[0].split(b":")[1])


def content(number, length):
    whole = b"".join(b"%08x %08x\n" % (number, line) for line in range(length // 18))
    return hashlib.sha256(whole).hexdigest()


def short(threads, pause):
    ended = threading.Event()
    counts = {"weir": 0, "direct": 0}

    def client():
        while not ended.is_set():
            try:
                s, body, length = ask("/short")
                while len(body) < length:
                    piece = s.recv(65536)
                    assert piece, f"an end after {len(body)} of {length} bytes"
                    body += piece
                s.close()
                with lock:
                    counts[body.decode()] += 1
            except Exception as error:
                fail("short", error)
            time.sleep(pause)

    begun = time.monotonic()
    clients = [threading.Thread(target=client) for _ in range(threads)]
    [one.start() for one in clients]
    print("under way", flush=True)
    sys.stdin.read()
    ended.set()
    [one.join() for one in clients]
    print(json.dumps({**counts, "failed": failed, "seconds": time.monotonic() - begun}))


def long(count):
    waiting = threading.Semaphore(0)
    whole = []

    def client(number):
        try:
            s, body, length = ask(f"/long/{number}")
            digest, received = hashlib.sha256(body), len(body)
            is_told = False
            while received < length:
                if received > length // 3 and not is_told:
                    waiting.release()
                    is_told = True
                piece = s.recv(65536)
                assert piece, f"an end after {received} of {length} bytes"
                digest.update(piece)
                received += len(piece)
            assert s.recv(1) == b"" and received == length
            assert digest.hexdigest() == content(number, length), f"other content in transfer {number}"
            with lock:
                whole.append(number)
        except Exception as error:
            fail(f"long {number}", error)
            waiting.release()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    [one.start() for one in clients]
    [waiting.acquire() for _ in clients]
    print("under way", flush=True)
    [one.join() for one in clients]
    print(json.dumps({"whole": len(whole), "failed": failed}))


if mode == "short":
    short(int(sys.argv[5]), float(sys.argv[6]))
else:
    long(int(sys.argv[5]))
