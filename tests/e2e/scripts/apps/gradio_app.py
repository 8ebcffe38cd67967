# A button: what was typed is told back by the server, over its queue.
import os
import gradio

name = os.environ["APP"]
with gradio.Blocks(title=f"gradio {name}") as app:
    text, said = gradio.Textbox(label="text"), gradio.Textbox(label="said")
    gradio.Button("Greet").click(lambda text: f"{name} greets {text}", text, said)
app.launch(server_name="0.0.0.0", server_port=7860)
