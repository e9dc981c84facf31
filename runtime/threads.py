"""Many small pieces of work that learn nothing, on the CPU threads of torch."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch


def on_pieces(work: Callable[[torch.Tensor], torch.Tensor], pieces: Sequence[torch.Tensor],
              together: bool = True) -> list[torch.Tensor]:
    """[work(piece) for piece in pieces], without gradients. together: whether `work` bears several threads.

    Operations on small graphs are too short to be divided among threads, as torch does: on a CPU each piece
    is one thread's instead.
    """
    threads = min(torch.get_num_threads(), len(pieces)) if together else 1
    if threads < 2 or pieces[0].device.type != "cpu":
        return [torch.no_grad()(work)(piece) for piece in pieces]
    whole = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
            return list(pool.map(torch.no_grad()(work), pieces))
    finally:
        torch.set_num_threads(whole)  # what a worker sets holds for threads to come, too
