"""Stands for a weir that is to take over: `MOMENT WEIR ARGUMENTS`. Runs WEIR, and before that does what MOMENT says:
`kill-before` kills the running weir at once, `kill-after` when it has offered what it has; `die:SECONDS` has this process
killed after that time.
"""
import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

moment, weir = sys.argv[1], sys.argv[2]


def waiting():
    """Bytes that wait at standard input."""
    count = array.array("i", [0])
    fcntl.ioctl(0, termios.FIONREAD, count)
    return count[0]


if moment == "kill-after":
    # The offer comes as its length, four bytes, and itself.
    while waiting() <= 4:
        time.sleep(0.01)
if moment.startswith("kill-"):
    os.kill(os.getppid(), signal.SIGKILL)
else:
    seconds = moment.split(":")[1]
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -9 {os.getpid()}"], stdin=subprocess.DEVNULL)
os.execv(weir, [weir, *sys.argv[3:]])
