"""Child-Tuning (Xu et al., EMNLP 2021): only a subset of the encoder's gradient entries updates its weights.

F keeps each entry with probability p, drawn anew every step, and scales it by 1 / p.
D keeps the fraction p of the entries with the largest Fisher information, measured once before training.
Weight decay is not part of the gradient: as in the authors' optimiser, it shrinks every entry.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from models.predictor.ensemble import Ensemble


class ChildTuning:
    """Masks gradients: call `mask(ensemble)` between backward() and the optimiser's step; p = 1 keeps all.

    generators: one per member, whose draws therefore depend on no other.
    """

    def __init__(self, mode: str, p: float, generators: Sequence[torch.Generator]):
        self.mode, self.p, self.generators = mode, p, generators
        self.kept: dict[str, torch.Tensor] = {}  # mode D: bool [M, ...] for each parameter

    def measure(self, ensemble: Ensemble, losses: Iterable[Callable[[], torch.Tensor]]) -> None:
        """Mode D: measures the Fisher information of each entry, and chooses the entries to keep per member.

        The Fisher information is the mean squared gradient over the batches' losses, up to a constant factor.
        """
        # a frozen encoder has no entries
        if self.mode != "D" or self.p >= 1 or not encoder_entries(ensemble):
            return
        fisher = {name: torch.zeros_like(p) for name, p in encoder_entries(ensemble)}
        for loss in losses:
            ensemble.zero_grad(set_to_none=False)
            loss().backward()
            for name, p in encoder_entries(ensemble):
                if p.grad is not None:
                    fisher[name] += p.grad**2
        ensemble.zero_grad(set_to_none=False)
        flat = torch.cat([f.flatten(1) for f in fisher.values()], dim=1)  # [M, E]
        count = max(1, round(self.p * flat.shape[1]))
        threshold = flat.topk(count, dim=1).values[:, -1]  # [M]
        self.kept = {name: f >= threshold.view(-1, *[1] * (f.dim() - 1)) for name, f in fisher.items()}

    def mask(self, ensemble: Ensemble) -> None:
        if self.p >= 1:
            return
        for name, p in encoder_entries(ensemble):
            if p.grad is None:
                continue
            if self.mode == "D":
                p.grad *= self.kept[name]
            else:
                draw = torch.stack([torch.rand(p.shape[1:], generator=generator, device=p.device)
                                    for generator in self.generators])
                p.grad *= (draw < self.p) / self.p


def encoder_entries(ensemble: Ensemble):
    return [(name, p) for name, p in ensemble.params.items() if name.startswith("encoder.")]
