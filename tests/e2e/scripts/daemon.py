"""Asks HOST PORT from a process that has left its parent, its session and its process group, and outlives them."""
import os
import sys
import time

from client import told

if os.fork() == 0:
    os.setsid()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.001)
        print(os.getpid(), told(sys.argv[1], int(sys.argv[2])))
