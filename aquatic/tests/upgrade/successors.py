"""A successor that goes wrong at a step of the hand-over. Put in the place of the tracker's program by the tests, with
the step in the first line of the file `step` beside it."""

import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

STARTED, LOADED, SWITCH, SERVING, REFUSED = 4, 5, 6, 7, 9


def main():
    step = (Path(sys.argv[0]).parent / "step").read_text().strip()
    if step == "exit":
        sys.exit(7)
    control = socket.socket(fileno=0)
    started = bytes([STARTED]) + struct.pack("<I", os.getpid())
    if step == "hang":
        time.sleep(100)
    elif step == "kill at the start":
        control.recv(8192)
    elif step == "garbage":
        control.send(b"hello")
        time.sleep(100)
    elif step == "wrong order":
        control.send(bytes([SERVING]))
        time.sleep(100)
    elif step == "refuse":
        control.send(bytes([REFUSED]) + b"another version")
        time.sleep(100)
    elif step == "kill while it receives the state":
        control.send(started)
        time.sleep(0.2)
    elif step in {"kill before it serves", "hang before it serves"}:
        control.send(started)
        control.send(bytes([LOADED]))
        # Descriptors that are received stay open: the stream that the state is sent through among them.
        while control.recvmsg(8192, 65536)[0][0] != SWITCH:
            pass
        if step.startswith("hang"):
            time.sleep(100)
    os.kill(os.getpid(), signal.SIGKILL)


main()
