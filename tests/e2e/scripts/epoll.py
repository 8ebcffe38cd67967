"""Connects many non-blocking sockets, driven by epoll alone: HOST PORT edge|level COUNT."""
import errno
import select
import socket
import sys

from client import PATIENCE, show

host, port, trigger, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
flags = select.EPOLLIN | select.EPOLLOUT | (select.EPOLLET if trigger == "edge" else 0)
poll = select.epoll()
sockets, answers = {}, {}


def start():
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setblocking(False)
    code = s.connect_ex((host, port))
    assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
    sockets[s.fileno()] = s
    poll.register(s, flags)


def writable(s):
    if s.fileno() in answers:
        return
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    # As some event loops ask again: "already connected", or success.
    assert s.connect_ex((host, port)) in (0, errno.EISCONN)
    assert show(s.getpeername()) == show((host, port)), s.getpeername()
    answers[s.fileno()] = b""
    s.sendall(b"who am I?\n")
    if trigger == "level":
        poll.modify(s, select.EPOLLIN)


def readable(s):
    while True:
        try:
            piece = s.recv(4096)
        except BlockingIOError:
            return
        if not piece:
            break
        answers[s.fileno()] += piece
    assert answers[s.fileno()], "an end, but no answer"
    poll.unregister(s)
    sockets.pop(s.fileno()).close()


for _ in range(count):
    start()
while sockets:
    events = poll.poll(PATIENCE)
    assert events, f"no event, but {len(sockets)} of {count} are waiting"
    for fd, event in events:
        s = sockets[fd]
        assert not event & select.EPOLLERR, errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
        if event & select.EPOLLOUT:
            writable(s)
        if event & (select.EPOLLIN | select.EPOLLHUP):
            readable(s)
print("all answered")
