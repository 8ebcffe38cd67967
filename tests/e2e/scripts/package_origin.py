"""A package index of every kind, each with one package that it makes itself: what pip, npm, cargo and apt download.

FOLDER LATENCY_MS [CERTIFICATE KEY], with which it speaks TLS. Prints its port; then, for each line of standard input, how often each path was asked for so far.
Freshness is said as the public indexes say it: minutes for what changes, a year for what never does.
"""
import base64
import collections
import email.utils
import gzip
import hashlib
import http.server
import io
import json
import pathlib
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

FOLDER, LATENCY = pathlib.Path(sys.argv[1]), int(sys.argv[2]) / 1000
CHANGES, STAYS = "public, max-age=300", "public, immutable, max-age=31536000"
CONTENT = "0123456789abcdef" * 20_000
files = {}
counts = collections.Counter()


def add(path, body, control):
    files[path] = (body if isinstance(body, bytes) else body.encode(), control)


def archive(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return raw.getvalue()


def pip():
    name = "demo-1.0-py3-none-any.whl"
    raw = io.BytesIO()
    members = {
        "demo.py": f"CONTENT = '{CONTENT}'\n",
        "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(raw, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
        record = "".join(f"{member},,\n" for member in members) + "demo-1.0.dist-info/RECORD,,\n"
        wheel.writestr("demo-1.0.dist-info/RECORD", record)
    digest = hashlib.sha256(raw.getvalue()).hexdigest()
    add("/pip/demo/", f'<!DOCTYPE html><a href="/pip/files/{name}#sha256={digest}">{name}</a>', CHANGES)
    add(f"/pip/files/{name}", raw.getvalue(), STAYS)


def npm(base):
    package = json.dumps({"name": "demo", "version": "1.0.0"})
    body = archive({"package/package.json": package, "package/index.js": f"module.exports = '{CONTENT}'"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode()
    version = {"name": "demo", "version": "1.0.0", "dist": {
        "tarball": f"{base}/npm/demo/-/demo-1.0.0.tgz", "integrity": integrity,
        "shasum": hashlib.sha1(body).hexdigest()}}
    add("/npm/demo", json.dumps({"name": "demo", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}), CHANGES)
    add("/npm/demo/-/demo-1.0.0.tgz", body, STAYS)


def cargo(base):
    manifest = '[package]\nname = "demo"\nversion = "1.0.0"\nedition = "2021"\n'
    body = archive({"demo-1.0.0/Cargo.toml": manifest, "demo-1.0.0/src/lib.rs": f'//! {CONTENT[:60_000]}\n'})
    entry = {"name": "demo", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
             "cksum": hashlib.sha256(body).hexdigest()}
    add("/cargo/config.json", json.dumps({"dl": f"{base}/cargo/crates"}), CHANGES)
    add("/cargo/de/mo/demo", json.dumps(entry) + "\n", CHANGES)
    add("/cargo/crates/demo/1.0.0/download", body, STAYS)


def apt():
    tree = FOLDER / "deb"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: demo\nVersion: 1.0\nArchitecture: all\nMaintainer: demo <demo@example.com>\nDescription: demo\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/demo").write_text(CONTENT)
    target = FOLDER / "demo.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, target], check=True, stdout=subprocess.DEVNULL)
    body = target.read_bytes()
    entry = f"{control}Filename: ./demo.deb\nSize: {len(body)}\nSHA256: {hashlib.sha256(body).hexdigest()}\n\n"
    lists = {"Packages": entry.encode(), "Packages.gz": gzip.compress(entry.encode())}
    sums = "".join(f" {hashlib.sha256(text).hexdigest()} {len(text)} {name}\n" for name, text in lists.items())
    date = email.utils.formatdate(usegmt=True)
    add("/apt/Release", f"Suite: demo\nDate: {date}\nSHA256:\n{sums}", CHANGES)
    for name, text in lists.items():
        add(f"/apt/{name}", text, CHANGES)
    add("/apt/demo.deb", body, STAYS)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and content in one segment.
    wbufsize = -1

    def do_GET(self):
        time.sleep(LATENCY)
        path = self.path.replace("/./", "/")
        counts[path] += 1
        body, control = files.get(path, (b"not here\n", CHANGES))
        tag = '"' + hashlib.sha256(body).hexdigest()[:16] + '"'
        same = self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else 200 if path in files else 404)
        self.send_header("Cache-Control", control)
        self.send_header("ETag", tag)
        if not same:
            kind = "text/html" if path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not same:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
base = f"http://127.0.0.1:{server.server_port}"
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    # By name: npm takes no certificate that is for an address.
    base = f"https://localhost:{server.server_port}"
pip()
npm(base)
cargo(base)
apt()
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
for line in sys.stdin:
    print(json.dumps(counts, sort_keys=True), flush=True)
