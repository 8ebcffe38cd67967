# A page with scripts, a WebSocket, a redirection, a cookie, and the documentation that FastAPI makes.
import os
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, RedirectResponse

app, name = FastAPI(), os.environ["APP"]

@app.get("/", response_class=HTMLResponse)
def page():
    return f"""<!doctype html><title>fastapi {name}</title><link rel="icon" href="data:,">
<script src="/script.js"></script><h1>fastapi {name}</h1><a id="go" href="/go">go</a><p id="said"></p>
<button onclick="ask()">Ask</button><button onclick="chat()">Chat</button>"""

@app.get("/script.js")
def script():
    # Addresses from the root, as of an app that knows of no prefix.
    text = """async function ask() {
  document.getElementById('said').textContent = (await (await fetch('/items/?q=%2Fa')).json()).said;
}
function chat() {
  const socket = new WebSocket(location.href.replace('http', 'ws').replace(/[^/]*$/, '') + 'chat', ['talk']);
  socket.onopen = () => socket.send('hello');
  socket.onmessage = (event) => { document.getElementById('said').textContent = `${socket.protocol} ${event.data}`; };
}"""
    return HTMLResponse(text, media_type="text/javascript")

@app.get("/items/")
def items(q: str):
    return {"said": f"{name} was asked for {q}"}

@app.get("/go")
def go():
    answer = RedirectResponse("/there")
    answer.set_cookie("session", name)
    return answer

@app.get("/there", response_class=HTMLResponse)
def there(request: Request):
    return f'<title>there</title><link rel="icon" href="data:,"><h1>{request.cookies.get("session")} at {name}</h1>'

@app.websocket("/chat")
async def chat(socket: WebSocket):
    await socket.accept("talk")
    await socket.send_text(f"{await socket.receive_text()} from {name}")
    await socket.close()
