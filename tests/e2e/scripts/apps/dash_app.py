# A callback: what is typed is told back by the server.
import os
from dash import Dash, Input, Output, dcc, html

app, name = Dash(__name__), os.environ["APP"]
app.layout = html.Div([
    html.H1(f"dash {name}"), dcc.Input(id="text", value=""), html.P(id="said"),
    dcc.Link("other", href="/other"),
])

@app.callback(Output("said", "children"), Input("text", "value"))
def say(text):
    return f"{name} was told {text}"

app.run(host="0.0.0.0", port=8050)
