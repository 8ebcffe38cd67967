"""HTTPS on loopback, or on HOST (host=HOST), with CERTIFICATE and KEY, asking for a client's certificate of AUTHORITY if
that is given. Prints its port. What a request gets depends on its path; see `answer`. No Content-Length means: until the
connection ends."""
import json
import socket
import ssl
import sys
import threading


def head_of(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = connection.recv(1)
        if not more:
            return None
        head += more
    return head.decode()


def answer(connection, head):
    """Whether the connection goes on."""
    path = head.split(" ")[1]
    if path == "/truncated":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        # FIN without close_notify.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
        return False
    if path == "/closed":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        connection.unwrap()
        return False
    if path == "/upgrade":
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while more := connection.recv(65536):
            connection.sendall(more)
        connection.unwrap()
        return False
    shown = connection.getpeercert() or {}
    body = json.dumps({
        "head": head,
        "version": connection.version(),
        "alpn": connection.selected_alpn_protocol(),
        "resumed": connection.session_reused,
        "client": [value for pair in shown.get("subject", ()) for _, value in pair],
    }).encode()
    more = b"Connection: close\r\n" if path == "/last" else b""
    if path == "/fresh":
        more = b"Cache-Control: max-age=600\r\n"
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + more + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    if path == "/last":
        connection.unwrap()
    return path != "/last"


def serve(raw):
    try:
        connection = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        try:
            connection.do_handshake()
        except ssl.SSLError:
            # The alert is to arrive: closed with bytes unread, the connection would be reset.
            socket.socket.shutdown(connection, socket.SHUT_WR)
            while socket.socket.recv(connection, 65536):
                pass
            raise
        while (head := head_of(connection)) and answer(connection, head):
            pass
        connection.close()
    except (ssl.SSLError, OSError):
        raw.close()


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.set_alpn_protocols(["h2", "http/1.1"] if "h2" in sys.argv[4:] else ["http/1.1"])
if len(sys.argv) > 3 and sys.argv[3] != "-":
    context.load_verify_locations(sys.argv[3])
    context.verify_mode = ssl.CERT_REQUIRED
if "tls12" in sys.argv[4:]:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if "tls13" in sys.argv[4:]:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
host = next((word[5:] for word in sys.argv[4:] if word.startswith("host=")), "127.0.0.1")
listener = socket.create_server((host, 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
