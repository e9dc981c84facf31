"""Losses of the predictor, as matrix expressions over all pairs of a batch.

Score and label [..., B] -> loss [...].
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

SOFTNESS = 0.3  # of a soft target, in standard deviations of the labels


def bpr(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Bayesian personalised ranking (Rendle et al., UAI 2009).

    Mean of -log sigmoid(s_i - s_j) over the pairs with y_i > y_j.
    """
    return over_pairs(-F.logsigmoid(differences(score)), differences(label) > 0)


def hinge(score: torch.Tensor, label: torch.Tensor, margin: float = 0.1) -> torch.Tensor:
    """Mean of max(0, margin - (s_i - s_j)) over the pairs with y_i > y_j."""
    return over_pairs((margin - differences(score)).clamp(min=0), differences(label) > 0)


def bce(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of sigmoid(s_i - s_j) against [y_i > y_j], ties at 1/2; mean over all i != j."""
    return pairwise_bce(score, (differences(label).sign() + 1) / 2)


def soft_bce(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """As `bce`, but against sigmoid((y_i - y_j) / (SOFTNESS std y)).

    So close labels, which noise may have swapped, pull less.
    """
    scale = SOFTNESS * label.std(-1, unbiased=False).clamp(min=1e-8)[..., None, None]
    return pairwise_bce(score, torch.sigmoid(differences(label) / scale))


def mse(score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Mean squared error against the label; `fit_ensemble` standardises the labels."""
    return (score - label).square().mean(-1)


def differences(x: torch.Tensor) -> torch.Tensor:
    """[..., B] -> [..., B, B]: x_i - x_j."""
    return x[..., :, None] - x[..., None, :]


def pairwise_bce(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """score [..., B], target [..., B, B] in [0, 1] -> the mean cross-entropy over the pairs i != j."""
    off_diagonal = ~torch.eye(score.shape[-1], dtype=torch.bool, device=score.device)
    return over_pairs(
        F.binary_cross_entropy_with_logits(differences(score), target, reduction="none"), off_diagonal)


def over_pairs(value: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
    """Mean of value [..., B, B] where pair [..., B, B] or [B, B] is True; 0 if there is no pair."""
    return torch.where(pair, value, 0.0).sum((-2, -1)) / pair.sum((-2, -1)).clamp(min=1)


LOSSES = {"bpr": bpr, "hinge": hinge, "bce": bce, "soft_bce": soft_bce, "mse": mse}
