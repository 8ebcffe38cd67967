"""What the scripts of clients share. A server here answers a line with the address that it sees as its peer."""
import errno
import socket
import sys

PATIENCE = 30


def show(address):
    """host:port as Rust prints it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(host, port, source=None):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family)
    s.settimeout(PATIENCE)
    if source:
        s.bind((source, 0))
    s.connect((host, port))
    return s


def read_to_end(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data.decode()


def talk(s):
    """Own address, peer, and what the server says that the client's address is."""
    own, peer = s.getsockname(), s.getpeername()
    s.sendall(b"who am I?\n")
    return show(own), show(peer), read_to_end(s)


def ask(host, port, source=None):
    with connect(host, port, source) as s:
        return talk(s)


def told(host, port, source=None):
    """`peer server-side`, for a test to compare."""
    _, peer, seen = ask(host, port, source)
    return f"{peer} {seen}"


def is_direct(host, port):
    """Whether the server sees this very socket."""
    own, _, seen = ask(host, port)
    return own == seen


def attempt(host, port):
    """`direct`, `captured`, or the name of the error."""
    try:
        return "direct" if is_direct(host, port) else "captured"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno]


if __name__ == "__main__":
    print(told(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
