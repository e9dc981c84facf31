"""What is known of an architecture before any label of its space: the input of the Gaussian process.

    background = Background(space.vocabulary, encoder, prior)
    known = background(batch)   # {"properties": [N, P], "places": ..., "facts": ..., "prior": ..., ...}

N graphs, P numbers of a feature, R reference cells.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.features.facts import facts_of
from models.features.paths import adjacency_features
from models.features.properties import of_cells, vertex_facts
from models.features.vocabulary import Vocabulary
from models.predictor.prior import Prior
from runtime.threads import on_pieces

REFERENCE = 2000  # unlabelled cells over which features and scores are standardised
ALWAYS = ("properties", "places", "facts")  # features that need neither a prior nor an encoder
PIECES = 4  # of an encoder, that analytic features read at a time
Features = dict[str, torch.Tensor]


class Background(nn.Module):
    """The features of graphs over a vocabulary.

    properties  the analytic properties of a cell
    places      which operation stands at each place, and which places are connected
    facts       the facts that the prior weighs, for weights of one's own
    prior       its score, [N, 1], if there is a prior
    embedding   of the pre-trained encoder, before fine-tuning, if there is one
    """

    def __init__(self, vocabulary: Vocabulary, encoder: nn.Module | None = None, prior: Prior | None = None):
        super().__init__()
        self.vocabulary, self.encoder, self.prior = vocabulary, encoder, prior

    @torch.no_grad()
    def forward(self, table: Batch) -> Features:
        """N graphs -> {name: float[N, P]}."""
        cells = range(int(table.marks.max()) + 1)
        rows = torch.arange(table.num_graphs, device=table.ops.device)

        def analytic(some: torch.Tensor) -> tuple[torch.Tensor, ...]:
            piece = table.rows(some)
            facts = vertex_facts(piece, self.vocabulary)  # once for two features
            return (of_cells(piece, self.vocabulary, facts, cells),
                    adjacency_features(piece, len(self.vocabulary)), facts_of(piece, self.vocabulary, facts))

        pieces = on_pieces(analytic, rows.split(PIECES * table.piece))
        known = dict(zip(ALWAYS, map(torch.cat, zip(*pieces))))
        if self.prior is not None:
            known["prior"] = self.prior.of_facts(known["facts"])[:, None]
        if self.encoder is not None:
            self.encoder.eval()
            known["embedding"] = torch.cat(on_pieces(
                lambda piece: self.encoder.embed(table.rows(piece)), rows.split(table.piece)))
        return known

    def offset(self, table: Batch) -> torch.Tensor | None:
        """The prior's score [N] alone; None without a prior."""
        return None if self.prior is None else self.prior.score(table, self.vocabulary)


def reference_cells(table: Batch) -> Batch:
    """At most REFERENCE cells of the table, evenly spaced over its rows."""
    some = torch.linspace(
        0, table.num_graphs - 1, min(REFERENCE, table.num_graphs), device=table.ops.device)  # [R]
    return table.rows(some.long())
