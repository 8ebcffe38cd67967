"""Random flows, checked byte by byte at both ends: `listen HOST` (prints its port; serves until its standard input
ends) or `connect HOST PORT COUNT SEED`.

The client tells its plan in a line: bytes up, bytes down, who ends first, and the seed of the bytes.
"""
import random
import socket
import sys
import threading

PATIENCE = 60
AT_ONE_TIME = 16


def payload(seed, direction, size):
    return random.Random(f"{seed} {direction}").randbytes(size)


def send(s, data, pieces):
    at = 0
    while at < len(data):
        length = pieces.choice([1, 100, 1460, 5000, 70000, 1 << 20])
        s.sendall(data[at:at + length])
        at += length
    s.shutdown(socket.SHUT_WR)


def receive(s, expected, already=b""):
    data = bytearray(already)
    while piece := s.recv(1 << 16):
        data += piece
    assert data == expected, f"{len(data)} bytes came, {len(expected)} were due"


def exchange(s, outgoing, incoming, order, seed, already=b""):
    pieces = random.Random(seed)
    if order == "together":
        failures = []
        def sending():
            try:
                send(s, outgoing, pieces)
            except Exception as error:
                failures.append(error)
        thread = threading.Thread(target=sending)
        thread.start()
        receive(s, incoming, already)
        thread.join()
        assert not failures, failures
    elif order == "send":
        send(s, outgoing, pieces)
        receive(s, incoming, already)
    else:
        receive(s, incoming, already)
        send(s, outgoing, pieces)


def serve(s):
    s.settimeout(PATIENCE)
    with s:
        line = b""
        while b"\n" not in line:
            piece = s.recv(4096)
            assert piece, "an end instead of a plan"
            line += piece
        line, already = line.split(b"\n", 1)
        up, down, order, seed = line.decode().split()
        order = {"client": "receive", "server": "send"}.get(order, order)
        exchange(s, payload(seed, "down", int(down)), payload(seed, "up", int(up)), order, seed, already)


def listen(host):
    problems = []
    with socket.create_server((host, 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)

        def guarded(s):
            try:
                serve(s)
            except Exception as error:
                problems.append(repr(error))

        def accept():
            while True:
                threading.Thread(target=guarded, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        sys.stdin.read()
    print("\n".join(problems) or "no problem", flush=True)


def connect(host, port, count, seed):
    plans, problems, lock = random.Random(seed), [], threading.Lock()
    flows = [
        (int(2 ** plans.uniform(0, 21)) - 1, int(2 ** plans.uniform(0, 21)) - 1,
         plans.choice(["client", "server", "together"]), plans.getrandbits(32))
        for _ in range(count)
    ]

    def work():
        while True:
            with lock:
                if not flows:
                    return
                up, down, order, number = flows.pop()
            try:
                with socket.create_connection((host, port)) as s:
                    s.settimeout(PATIENCE)
                    s.sendall(f"{up} {down} {order} {number}\n".encode())
                    own = {"client": "send", "server": "receive"}.get(order, order)
                    exchange(s, payload(number, "up", up), payload(number, "down", down), own, number)
            except Exception as error:
                problems.append(f"{up} {down} {order} {number}: {error!r}")

    threads = [threading.Thread(target=work) for _ in range(AT_ONE_TIME)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print("\n".join(problems) or "no problem")


mode, host, *rest = sys.argv[1:]
if mode == "listen":
    listen(host)
else:
    connect(host, *map(int, rest))
