"""How a connection to HOST PORT ends: says MODE in a line, then prints what it receives and the end it sees.

MODE `wait` just reads; `half-close` ends its own side first; `reset` resets the connection once the server has
answered.
"""
import errno
import socket
import struct
import sys

s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.settimeout(60)
mode = sys.argv[3]
s.sendall(mode.encode() + b"\n")
if mode == "half-close":
    s.shutdown(socket.SHUT_WR)
data, end = b"", "EOF"
try:
    while piece := s.recv(4096):
        data += piece
        if mode == "reset":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end = "reset"
            break
except OSError as error:
    end = errno.errorcode[error.errno]
s.close()
print(data.decode() or "nothing", end)
