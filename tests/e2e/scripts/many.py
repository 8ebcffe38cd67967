"""Many connections to a server that echoes: `HOST PORT open COUNT` or `HOST PORT sequential COUNT`. PORT may be
several, with commas between them, that take turns.

`open` makes them all at once with non-blocking connects, says "open", and ends them on a newline from standard
input. `sequential` makes one after the other; the client closes first every second time.
"""
import errno
import select
import socket
import sys

PATIENCE = 60

host, mode, count = sys.argv[1], sys.argv[3], int(sys.argv[4])
ports = [int(port) for port in sys.argv[2].split(",")]
family = socket.AF_INET6 if ":" in host else socket.AF_INET


def receive(s, length):
    data = b""
    while len(data) < length:
        piece = s.recv(length - len(data))
        assert piece, f"an end after {len(data)} of {length} bytes"
        data += piece
    return data


def exchange(s, number):
    message = b"%08d\n" % number
    s.sendall(message)
    assert receive(s, len(message)) == message, number


def open_all():
    poll = select.poll()
    sockets = {}
    for number in range(count):
        s = socket.socket(family)
        s.setblocking(False)
        code = s.connect_ex((host, ports[number % len(ports)]))
        assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
        sockets[s.fileno()] = s
        poll.register(s, select.POLLOUT)
    waiting = count
    while waiting:
        ready = poll.poll(PATIENCE * 1000)
        assert ready, f"{waiting} of {count} connections are not made"
        for fd, _ in ready:
            assert sockets[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            poll.unregister(fd)
            waiting -= 1
    for number, s in enumerate(sockets.values()):
        s.settimeout(PATIENCE)
        exchange(s, number)
    print("open", flush=True)
    sys.stdin.readline()
    for number, s in enumerate(sockets.values()):
        exchange(s, number)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
        s.close()


def sequential():
    for number in range(count):
        with socket.socket(family) as s:
            s.connect((host, ports[number % len(ports)]))
            exchange(s, number)
            if number % 2:
                s.shutdown(socket.SHUT_WR)
            else:
                # An empty line asks the server to close.
                s.sendall(b"\n")
            assert s.recv(1) == b""


{"open": open_all, "sequential": sequential}[mode]()
print("done")
