"""HTTPS on port 443 of loopback with CERTIFICATE and KEY, for names that a context leads to. Prints its port.
/redirect leads to /after, by its own name; /socket becomes an echo; all else tells the head that came."""
import http.server
import json
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        host = self.headers["Host"]
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", f"https://{host}/after?x=1")
            self.send_header("Set-Cookie", "plain=1; Path=/")
            self.send_header("Set-Cookie", f"wide=1; Domain={host.split('.', 1)[1]}; Secure")
            self.send_header("Access-Control-Allow-Origin", f"https://{host}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.headers.get("Upgrade") == "echo":
            self.send_response(101)
            self.send_header("Connection", "upgrade")
            self.send_header("Upgrade", "echo")
            self.end_headers()
            while data := self.connection.recv(65536):
                self.connection.sendall(data)
            self.close_connection = True
        else:
            body = json.dumps({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}).encode()
            self.send_response(200)
            self.send_header("Cache-Control", "max-age=60")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(443, flush=True)
server.serve_forever()
