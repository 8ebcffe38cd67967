"""Connects to HOST PORT once for each line on standard input, and prints what became of it."""
import sys

from client import attempt

for _ in sys.stdin:
    print(attempt(sys.argv[1], int(sys.argv[2])), flush=True)
