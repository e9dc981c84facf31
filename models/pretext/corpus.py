"""What pre-training reads: tables of architectures with the targets of its tasks, and the batches of them."""
from __future__ import annotations

from typing import NamedTuple

import torch

from models.batch import Batch

FULL = 12  # of several tables, those with more vertices come in smaller batches


class Corpus(NamedTuple):
    """Tables of graphs, all over one vocabulary, and the share of the batches that each gets.

    targets: half[N, V, T] of each table (`models.pretext.regression.target_tables`), or None.
    """

    tables: list[Batch]
    targets: list[torch.Tensor | None]
    shares: list[float]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Batch, torch.Tensor | None]:
        """A batch of one of the tables, about `size` graphs, and its targets float[B, V, T]."""
        place, device = 0, self.tables[0].ops.device
        if len(self.tables) > 1:
            shares = torch.tensor(self.shares, device=device)
            place = int(shares.multinomial(1, generator=generator))
            size = max(2, size * FULL // max(FULL, self.tables[place].ops.shape[1]))
        table, target = self.tables[place], self.targets[place]
        index = torch.randint(table.num_graphs, (size,), generator=generator, device=device)  # [B]
        return table.rows(index), None if target is None else target[index].float()
