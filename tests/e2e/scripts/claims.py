"""What comes of connections that call their server by some name. Arguments: a name to resolve first, or nothing; and
lines of `KIND NAME ADDRESS PORT`, where KIND is http, tls or opaque and NAME may be `-`."""
import errno
import ssl
import sys

import client
import resolve


def hello(name):
    """The beginning of a TLS connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=None if name == "-" else name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def attempt(kind, name, address, port):
    first = {
        "http": lambda: f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode(),
        "tls": lambda: hello(name),
        "opaque": lambda: b"what is this\n",
    }[kind]()
    try:
        with client.connect(address, int(port)) as s:
            s.sendall(first)
            text = client.read_to_end(s)
        return "reached" if "reached" in text else text[9:12] or "end"
    except OSError as error:
        return errno.errorcode[error.errno]


if sys.argv[1]:
    assert "#53 0 - " in resolve.ask("fd00:18::2", sys.argv[1], 1)
for line in sys.argv[2].splitlines():
    print(attempt(*line.split()), flush=True)
