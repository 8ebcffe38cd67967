# What Streamlit does on a page: a widget over its WebSocket, a picture and a file of its own.
import os, streamlit
streamlit.title(f"streamlit {os.environ['APP']}")
count = streamlit.session_state.get("count", 0)
if streamlit.button("Count"):
    count += 1
    streamlit.session_state["count"] = count
streamlit.write(f"counted {count} by {os.environ['APP']}")
# One red pixel.
streamlit.image(bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"))
