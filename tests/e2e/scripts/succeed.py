"""Stands for a weir that is to take over: `MOMENT WEIR ARGUMENTS`. Runs WEIR, and before that does what MOMENT says:
`kill-before` kills the running weir at once, `kill-after` when it has offered what it has; `die:SECONDS` has this process
killed after that time. Two don't get so far: `leave:FILE` starts a program that would run on, writes its pid to FILE and
fails; `hold:FOLDER` makes FOLDER/told when it has been told what is captured, and fails once there is FOLDER/go.
"""
import array
import fcntl
import os
import signal
import socket
import struct
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


def hold(folder):
    running = socket.socket(fileno=0)

    def receive(length):
        data = b""
        while len(data) < length:
            data += running.recv(length - len(data))
        return data

    def hear():
        receive(struct.unpack(">I", receive(4))[0])

    def say(message):
        running.sendall(struct.pack(">I", len(message)) + message)

    hear()
    say(b'{"answer": "ready"}')
    hear()
    open(f"{folder}/told", "w").close()
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.01)
    say(b'{"answer": "failed", "reason": "as it was told"}')


if moment.startswith("hold:"):
    hold(moment.split(":", 1)[1])
    sys.exit(3)
if moment.startswith("leave:"):
    left = subprocess.Popen(["sleep", "1000"])
    with open(moment.split(":", 1)[1], "w") as file:
        file.write(str(left.pid))
    # As it has the socket, too, no end of it would be heard.
    failed = b'{"answer": "failed", "reason": "as it was told"}'
    socket.socket(fileno=0).sendall(struct.pack(">I", len(failed)) + failed)
    sys.exit(3)
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
