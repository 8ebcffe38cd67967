# A form, a redirection after it, a session, and static files; with FIXED behind ProxyFix, so that it knows its prefix.
import os
from flask import Flask, redirect, request, session, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

app, name = Flask(__name__), os.environ["APP"]
app.secret_key = "of a test"
if os.environ.get("FIXED"):
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)

@app.get("/")
def page():
    return f"""<!doctype html><title>flask {name}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="{url_for('style')}"><h1>flask {name}</h1><p id="root">{request.script_root}</p>
<form action="{url_for('say')}" method="post"><input name="text"><button>Say</button></form>
<p id="said">{session.get('text', 'nothing')} at {name}</p><img id="picture" src="{url_for('picture')}" alt="">"""

@app.post("/say")
def say():
    session["text"] = request.form["text"]
    return redirect(url_for("page"))

@app.get("/style.css")
def style():
    # From the root, in a file that nobody rewrites.
    return "h1 { background: url(/picture.svg) } p { color: rgb(1, 2, 3) }", {"Content-Type": "text/css"}

@app.get("/picture.svg")
def picture():
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"><rect width="7" height="7"/></svg>'
    return text, {"Content-Type": "image/svg+xml"}
