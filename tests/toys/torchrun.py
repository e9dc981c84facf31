"""Two processes that find each other as torchrun's do."""
from __future__ import annotations

import os
import socket
import subprocess
import sys

from conftest import ROOT


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_two(code: str, *words: str) -> None:
    """Runs Python code in two processes, with these words as sys.argv[1:]; both must end well."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MASTER_ADDR": "127.0.0.1",
                                "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True,
                                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
               for rank in range(2)]
    ends = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ends
