"""A network of its own for a sweep, so that nobody else can reach NNI, which listens without a password.

On Linux, an ordinary user may start a process in a network namespace in which there is only a loopback
interface (`unshare`). The launcher starts itself there once more, with NNI and all trials.
"""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache

from runtime.files import ROOT

INSIDE = "GMAE_NAS_PRIVATE"  # environment variable: the pipe by which the inner launcher watches the outer
UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--")
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 0x1  # ioctls of Linux on an interface


def inside() -> bool:
    """Whether this process runs in a network of its own."""
    return INSIDE in os.environ


@lru_cache
def available() -> bool:
    """Whether this machine gives an ordinary user a network namespace with a loopback interface."""
    if not sys.platform.startswith("linux") or not shutil.which("unshare"):
        return False
    test = "from sweeps.private import loopback_up; loopback_up()"
    end = subprocess.run([*UNSHARE, sys.executable, "-c", test], cwd=ROOT, capture_output=True, check=False)
    return end.returncode == 0


def loopback_up() -> None:
    """Switches on the loopback interface, which is off in a new namespace."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        request = struct.pack("16sh22x", b"lo", 0)
        flags, = struct.unpack_from("16xh", fcntl.ioctl(some, GET_FLAGS, request))
        fcntl.ioctl(some, SET_FLAGS, struct.pack("16sh22x", b"lo", flags | UP))


def run_inside(script: str, argv: list[str]) -> int:
    """Runs a script in a network of its own, passes signals on, and returns its exit code.

    The script ends if this process does, however that ends.
    """
    ours, theirs = os.pipe()
    with subprocess.Popen([*UNSHARE, sys.executable, script, *argv], pass_fds=(ours,),
                          env=os.environ | {INSIDE: str(ours)}) as child:
        os.close(ours)
        with passed_on(child):
            code = child.wait()
        os.close(theirs)
    return code


@contextlib.contextmanager
def passed_on(child: subprocess.Popen) -> Iterator[None]:
    """Sends Ctrl-C and SIGTERM to the child instead of ending this process."""
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: child.send_signal(signal.SIGINT)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)


def settle_in() -> None:
    """The first step inside: switches on loopback, and ends this process if the outer launcher is killed."""
    loopback_up()

    def watch() -> None:
        os.read(int(os.environ[INSIDE]), 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGKILL)  # its guard ends NNI and the trials sooner than it could

    threading.Thread(target=watch, daemon=True).start()
