"""One batch, several processes: each encodes a part of it, and all see the whole.

B graphs, V vertices, D width of the encoder.
"""
from __future__ import annotations

import torch
from torch import distributed, nn

from models.batch import Batch


class SharedEncoder:
    """An encoder as pretext tasks call it, the graphs of each call divided among torchrun's processes.

    All processes draw the same batches and masks. Each encodes its part and receives what the others made of
    theirs, so that all compute the loss of the whole batch, where graphs may be compared, and the same
    gradient of the heads. Of the encoder's gradient each knows the share of its part: `reduce`, after the
    backward pass, makes the sum of it. A step is that of one process, up to rounding and the draws of
    dropout.
    """

    def __init__(self, encoder: nn.Module, rank: int, ranks: int):
        self.encoder, self.rank, self.ranks = encoder, rank, ranks

    def __getattr__(self, name: str):
        return getattr(self.encoder, name)

    def __call__(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D] of the whole batch."""
        parts = torch.arange(batch.num_graphs, device=batch.ops.device).tensor_split(self.ranks)
        own = parts[self.rank]
        h = self.encoder(batch.rows(own), None if masked is None else masked[own])
        return Gathered.apply(h, [len(part) for part in parts], self.rank)

    def embed(self, batch: Batch) -> torch.Tensor:
        return self.encoder.readout(self(batch), batch)

    def reduce(self) -> None:
        """Sums the gradients of the encoder over the processes."""
        for parameter in self.encoder.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)


class Gathered(torch.autograd.Function):
    """The parts [B_i, ...] of all processes, in order -> [B, ...]; each gets the gradient of its own."""

    @staticmethod
    def forward(ctx, part: torch.Tensor, sizes: list[int], rank: int) -> torch.Tensor:
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[:rank + 1]))
        padded = part.new_zeros(max(sizes), *part.shape[1:])  # all parts must be of one size
        padded[:len(part)] = part
        every = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(every, padded)
        return torch.cat([other[:size] for other, size in zip(every, sizes)])

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return grad[ctx.own], None, None
