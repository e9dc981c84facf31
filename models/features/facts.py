"""Six facts about an architecture that mean the same in every space: what the prior of accuracy reads.

Each is known to go with accuracy wherever it was studied: parameters and layers that anything flows through
(the number of layers alone is among the best scores without labels: Tybl and Neumann, VKDNW, CVPR 2025), how
widely the input is read and how short the shortest way to the output is (trainability), and how much is
pooled away. Nothing here reads a label. N graphs, V vertices.
"""
from __future__ import annotations

import torch

from models.batch import Batch
from models.features.properties import costs, logarithm, lookup, vertex_facts
from models.features.vocabulary import Vocabulary

FACTS = ("log parameters", "log layers", "log spatial layers", "log fan-out of the inputs",
         "- log shortest path", "- log pooling")  # more of each is expected to be better


def portable_facts(batch: Batch, vocabulary: Vocabulary, chunk: int = 16384) -> torch.Tensor:
    """float[N, F], the columns FACTS: per cell, and of the vertices that something flows through."""
    rows = torch.arange(batch.num_graphs, device=batch.ops.device).split(chunk)
    pieces = (batch.rows(piece) for piece in rows)
    return torch.cat([facts_of(piece, vocabulary, vertex_facts(piece, vocabulary)) for piece in pieces])


def facts_of(batch: Batch, vocabulary: Vocabulary, facts: dict[str, torch.Tensor]) -> torch.Tensor:
    """`portable_facts` from the `vertex_facts`."""
    does = lookup(batch, vocabulary)
    live = facts["live"]  # [N, V]
    ends = live * batch.is_output  # [N, V]
    own, projection, _ = costs(batch, vocabulary)  # [N, V] each
    cells = 1 + batch.marks.amax(1)  # [N]

    def total(fact):
        return (fact * live).sum(1) / cells  # [N]

    return torch.stack([
        logarithm(total(own + projection)),
        total(does["layers"]).log1p(),
        total(does["layers"] * (does["reach"] > 0)).log1p(),
        total(facts["fan-out"] * batch.is_input).log1p(),
        -((facts["least vertices before"] * ends).sum(1) / ends.sum(1).clamp(min=1)).log1p(),
        -total((does["window"] > 0).float()).log1p(),
    ], dim=1)
