"""Connects to HOST PORT, says "go", reads nothing until told to by a line on standard input, then reads to the end.

What comes must be the numbers 0, 1, 2, ... as 8 bytes each in this machine's byte order. Prints how many there were.
"""
import array
import socket
import sys

s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"go\n")
sys.stdin.readline()
s.settimeout(60)
count, rest = 0, b""
while piece := s.recv(1 << 20):
    rest += piece
    whole = len(rest) // 8
    numbers = array.array("Q", rest[:whole * 8])
    assert numbers == array.array("Q", range(count, count + whole)), f"wrong bytes after {count * 8}"
    count, rest = count + whole, rest[whole * 8:]
assert not rest, f"{len(rest)} odd bytes"
print(count)
