# An app that tells what it was asked; prints its port. NAME, and PORT and ADDRESS if they matter.
import http.server, json, sys, urllib.parse

name = sys.argv[1]
served = 0

class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def tell(self):
        global served
        served += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        status, fields = 200, [("Content-Type", "application/json")]
        if path == "/redirect":
            status, fields = 302, fields + [("Location", query)]
        if path == "/cookie":
            fields.append(("Set-Cookie", f"session={name}; Path=/; Domain=app.test; HttpOnly"))
        if path == "/cached":
            fields.append(("Cache-Control", "max-age=600"))
        if path == "/page":
            fields[0] = ("Content-Type", "text/html; charset=utf-8")
        told = json.dumps({"app": name, "served": served, "method": self.command, "target": self.requestline.split(" ")[1],
                           "fields": {key.lower(): value for key, value in self.headers.items()},
                           "body": body.decode()}).encode()
        if path == "/page":
            told = urllib.parse.unquote(query).encode()
        self.send_response(status)
        for field in fields:
            self.send_header(*field)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_PROPFIND = tell

    def log_message(self, *_):
        pass

port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
server = http.server.ThreadingHTTPServer((sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1", port), App)
print(server.server_address[1], flush=True)
server.serve_forever()
