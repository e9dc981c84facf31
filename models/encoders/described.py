"""A graph transformer whose weights of operations follow from their descriptions: one encoder for all spaces.

While it is pre-trained, `describe` computes the weights of K operations as a linear map of their P numbers
(`models.features.operations`). What is stored has the shape of a graph transformer over P operations;
`for_vocabulary` makes of it the plain encoder of any space, which is then fine-tuned like any other.
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from models.encoders.transformer import GraphTransformer
from models.features.operations import described
from models.features.vocabulary import Vocabulary

ALONG = {"embed_op.weight": 1, "gate": 0}  # end of a weight's name: its dimension of operations


class OfDescriptions(nn.Module):
    """Weights over P numbers and a mask token -> weights over K operations and the token."""

    def __init__(self, rows: torch.Tensor, along: int):
        """rows: [K+1, P+1]; along: the dimension of the operations, 0 or 1."""
        super().__init__()
        self.along = along
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight @ self.rows.T if self.along else self.rows @ weight


def rows_of(vocabulary: Vocabulary) -> torch.Tensor:
    """float[K+1, P+1]: the descriptions; the last row and column are the mask token's own."""
    return torch.block_diag(described(vocabulary), torch.ones(1, 1))


def describe(encoder: GraphTransformer, vocabulary: Vocabulary) -> GraphTransformer:
    """Makes of an encoder over P operations one over the vocabulary, in place, with the same parameters."""
    rows = rows_of(vocabulary)
    parametrize.register_parametrization(
        encoder.embed_op, "weight", OfDescriptions(rows, ALONG["embed_op.weight"]), unsafe=True)
    for layer in encoder.layers:
        parametrize.register_parametrization(
            layer, "gate", OfDescriptions(rows, ALONG["gate"]), unsafe=True)
    encoder.operations = len(vocabulary)
    return encoder


def bare_weights(encoder: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of an encoder, described or not, under the names of a plain one."""
    return {name.replace("parametrizations.", "").removesuffix(".original"): value
            for name, value in encoder.state_dict().items()}


def for_vocabulary(weights: dict[str, torch.Tensor], vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """The weights of the plain encoder over a vocabulary, of those over P numbers."""
    rows = rows_of(vocabulary)
    return {name: next((OfDescriptions(rows, along)(value) for end, along in ALONG.items()
                        if name.endswith(end)), value)
            for name, value in weights.items()}
