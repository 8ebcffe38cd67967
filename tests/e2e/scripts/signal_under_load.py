"""Connects to HOST PORT 300 times a second, and sends the process PID a signal after a second: KILL, TERM, or STOP and
after another 1.5 s CONT. Prints a line an attempt: its start in ms after the first signal, how many ms it took, and what
became of it.
"""
import os
import signal
import sys
import threading
import time

from client import attempt

host, port, pid, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
INTERVAL = 0.003
BEFORE, STOPPED, AFTER = 1.0, 1.5, 1.5

results, threads = [], []
ending = threading.Event()


def one():
    start = time.monotonic()
    what = attempt(host, port)
    results.append((start, time.monotonic() - start, what))


def load():
    while not ending.wait(INTERVAL):
        thread = threading.Thread(target=one)
        thread.start()
        threads.append(thread)


loading = threading.Thread(target=load)
loading.start()
time.sleep(BEFORE)
signalled = time.monotonic()
os.kill(pid, getattr(signal, "SIG" + name))
if name == "STOP":
    time.sleep(STOPPED)
    os.kill(pid, signal.SIGCONT)
time.sleep(AFTER)
ending.set()
loading.join()
for thread in threads:
    thread.join()
for start, took, what in sorted(results):
    print(f"{(start - signalled) * 1000:.1f} {took * 1000:.1f} {what}")
