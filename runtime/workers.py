"""The processes that share each batch, where torchrun starts several: `with open_worker(...) as worker`."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import distributed

from runtime.seeding import choose_device


class Worker(NamedTuple):
    """A process of a training: its device, its number, and how many processes share each batch."""

    device: torch.device
    rank: int = 0
    ranks: int = 1


def processes() -> int:
    """The number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def open_worker(device: str, threads: int) -> Iterator[Worker]:
    """Yields this process's worker: the only one, or one of torchrun's, which can reach each other then.

    device, threads: as for `choose_device`; with auto, each process gets a GPU of its own, if there are any.
    """
    if processes() == 1:
        yield Worker(choose_device(device, threads))
        return
    own = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    place = choose_device(own if device == "auto" else device, threads)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Worker(place, distributed.get_rank(), processes())
    finally:
        distributed.destroy_process_group()
