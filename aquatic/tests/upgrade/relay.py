"""A go-between in a hand-over: started in place of the tracker's program, it starts that, and relays what both sides
send until one of them is to be killed. The files beside it are `step`, which says who is killed before or after which
message, and `next`, the name of the real program. Instead of a victim, `nobody` has the message wait until there is a
file `go`; there is a file `waits` meanwhile."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MAX_MESSAGE, MAX_DESCRIPTORS = 8192, 64


def kill(victim, predecessor, successor):
    if victim == "successor":
        successor.kill()
        successor.wait()
    else:
        # After the last message it may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(predecessor, signal.SIGKILL)
    # The other side sees the end of the connection.
    os._exit(0)


def main():
    directory = Path(sys.argv[0]).parent
    victim, when, kind = (directory / "step").read_text().split()
    program = directory / (directory / "next").read_text()
    predecessor = os.getppid()
    above = socket.socket(fileno=0)
    below, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    successor = subprocess.Popen([program, *sys.argv[1:]], stdin=theirs)
    theirs.close()
    while True:
        for side, other in ((above, below), (below, above)):
            if not select.select([side], [], [], 0.005)[0]:
                continue
            message, descriptors, _, _ = socket.recv_fds(side, MAX_MESSAGE, MAX_DESCRIPTORS)
            if not message:
                return
            is_step = message[0] == int(kind)
            if is_step and victim == "nobody":
                (directory / "waits").touch()
                while not (directory / "go").exists():
                    time.sleep(0.005)
                is_step = False
            if is_step and when == "before":
                kill(victim, predecessor, successor)
            socket.send_fds(other, [message], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            if is_step:
                kill(victim, predecessor, successor)


main()
