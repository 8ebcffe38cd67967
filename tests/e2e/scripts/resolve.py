"""A DNS client that shows what it gets, and from whom: `source rcode flags addresses`."""
import errno
import os
import socket
import struct

PATIENCE = 20


def query(name, kind=1, id=None, extra=b"", count=0):
    id = struct.unpack("!H", os.urandom(2))[0] if id is None else id
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack("!HHHHHH", id, 0x0100, 1, 0, 0, count)
    return header + labels + b"\0" + struct.pack("!HH", kind, 1) + extra


def skip_name(message, at):
    while True:
        length = message[at]
        if length >= 0xc0:
            return at + 2
        at += 1 + length
        if not length:
            return at


def records(message):
    """(type, ttl, data) of the answers."""
    at = skip_name(message, 12) + 4
    found = []
    for _ in range(struct.unpack("!H", message[6:8])[0]):
        at = skip_name(message, at)
        kind, _, ttl, length = struct.unpack("!HHIH", message[at:at + 10])
        found.append((kind, ttl, message[at + 10:at + 10 + length]))
        at += 10 + length
    return found


def describe(message):
    rcode, truncated = message[3] & 15, "TC" if message[2] & 2 else "-"
    found = []
    for kind, _, data in records(message):
        if kind in (1, 28):
            found.append(socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data))
    return " ".join([str(rcode), truncated, ",".join(found) or "-"])


def udp(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(PATIENCE)
    return s


def ask(host, name, kind=1, way="connect"):
    """One question: over UDP on a connected or unconnected socket, or over TCP."""
    message = query(name, kind)
    try:
        if way == "tcp":
            with socket.create_connection((host, 53), PATIENCE) as s:
                s.sendall(struct.pack("!H", len(message)) + message)
                stream = s.makefile("rb")
                answer = stream.read(struct.unpack("!H", stream.read(2))[0])
                source = s.getpeername()
        else:
            with udp(host) as s:
                if way == "connect":
                    s.connect((host, 53))
                    s.send(message)
                    assert s.getpeername()[:2] == (host, 53), s.getpeername()
                else:
                    s.sendto(message, (host, 53))
                answer, source = s.recvfrom(65535)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    assert answer[:2] == message[:2], "another id"
    return f"{source[0]}#{source[1]} {describe(answer)}"
