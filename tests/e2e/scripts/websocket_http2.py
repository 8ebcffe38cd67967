# A WebSocket client over HTTP/2 (RFC 8441): many sockets as streams of one connection. VERSION as for websocket_http1.py.
import os, socket, sys
import h2.connection, h2.config, h2.events, h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

weir, origin = int(sys.argv[1]), sys.argv[2]
version = sys.argv[3] if len(sys.argv) > 3 else None
sock = socket.create_connection(("127.0.0.1", weir), timeout=30)
conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
conn.initiate_connection()
conn.increment_flow_control_window(64 << 20)
conn.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 32 << 20})
sock.sendall(conn.data_to_send())
streams = {}

class Stream:
    def __init__(self):
        self.id = conn.get_next_available_stream_id()
        self.ws = Connection(ConnectionType.CLIENT)
        self.status, self.out, self.events, self.ended, self.reset = None, b"", [], False, False
        self.parts = b""
        streams[self.id] = self
        conn.send_headers(self.id, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
            (":authority", origin), (":path", "/chat"), ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat")])
    def send(self, event):
        self.out += self.ws.send(event)
    def message(self):
        while not self.events: turn()
        return self.events.pop(0)

def flush():
    for stream in streams.values():
        while stream.out and stream.status == "200" and not stream.reset:
            room = min(conn.local_flow_control_window(stream.id), conn.max_outbound_frame_size)
            if room <= 0: break
            part, stream.out = stream.out[:room], stream.out[room:]
            conn.send_data(stream.id, part)
    sock.sendall(conn.data_to_send())

def turn():
    flush()
    data = sock.recv(1 << 20)
    assert data, "the connection has ended"
    for event in conn.receive_data(data):
        stream = streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
            if code in event.changed_settings: assert event.changed_settings[code].new_value == 1
        elif isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            stream.status = fields[":status"]
            assert stream.status == "200" and fields["sec-websocket-protocol"] == "chat", fields
            assert "sec-websocket-accept" not in fields and "upgrade" not in fields, fields
        elif isinstance(event, h2.events.DataReceived):
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            # The end of a stream may come in an empty frame of its own.
            if not event.data: continue
            stream.ws.receive_data(event.data)
            for message in stream.ws.events():
                if isinstance(message, (BytesMessage, TextMessage)):
                    kind = bytes if isinstance(message, BytesMessage) else str
                    data = bytes(message.data) if kind is bytes else message.data.encode()
                    stream.parts += data
                    if message.message_finished:
                        stream.events.append(stream.parts if kind is bytes else stream.parts.decode())
                        stream.parts = b""
                else:
                    stream.events.append(message)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise SystemExit(f"GOAWAY {event.error_code}")

# Sixty-four of them at once.
many = [Stream() for _ in range(64)]
sent = {}
for stream in many:
    sent[stream.id] = os.urandom(1000 * (stream.id % 90))
    stream.send(BytesMessage(sent[stream.id]))
for stream in many:
    assert stream.message() == sent[stream.id]
stream = many[0]
if version:
    stream.send(TextMessage("version"))
    assert stream.message() == version
stream.send(BytesMessage(b"frag", message_finished=False))
stream.send(Ping(b"now"))
stream.send(BytesMessage(b"mented"))
got = [stream.message(), stream.message()]
assert b"fragmented" in got and any(isinstance(event, Pong) and event.payload == b"now" for event in got), got
large = os.urandom(16 << 20)
stream.send(BytesMessage(large))
assert stream.message() == large
for stream, (code, reason) in zip(many[1:], ((1000, "bye"), (1011, "oops"), (4999, "own"))):
    stream.send(TextMessage(f"close {code} {reason}"))
    end = stream.message()
    assert isinstance(end, CloseConnection) and (end.code, end.reason) == (code, reason), end
    stream.send(end.response())
    while not stream.ended: turn()
# A server that goes without a word: the stream is reset, or ends without a close frame, and others go on.
stream = many[10]
stream.send(TextMessage("abort"))
while not (stream.reset or stream.ended): turn()
many[11].send(TextMessage("still here"))
assert many[11].message() == "still here"
print("all well")
