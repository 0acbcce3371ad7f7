"""Runs a program that ends with whoever asked for it, also by kill -9: ``python -I -S tether.py WORDS...``.

Whoever asks starts this as the first process of a new session, with a pipe as its input. The pipe ends when that
process is gone, however it ended; then the program and all that it started are ended too. A script of the standard
library alone, so that it is there before the program is, and takes as little as a process can.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 2.0  # for the program to end by itself, once nobody waits for it


def main(words: list[str]) -> int:
    """Run the program and return its exit code, as a shell has it."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as program:
        signal.signal(signal.SIGTERM, lambda *_: program.terminate())
        threading.Thread(target=_watch, args=(program,), daemon=True).start()
        code = program.wait()
    if select.select([sys.stdin], [], [], 0)[0]:  # its end: nobody else is there to end what the program left
        _end_all()
    return code if code >= 0 else 128 - code


def _watch(program: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    program.terminate()
    time.sleep(GRACE_SECONDS)
    _end_all()


def _end_all() -> None:
    """End every process of this one's group, itself among them."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
