"""Measures how well scores rank architectures. Shapes: score [N], truth [N]; higher is better in both."""
from __future__ import annotations

import numpy as np
from scipy import stats


def kendall_tau(score: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b; 0 if either is constant."""
    return float(np.nan_to_num(stats.kendalltau(score, truth).statistic))


def spearman_rho(score: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rank correlation; 0 if either is constant."""
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(stats.spearmanr(score, truth).statistic)


def precision_at(score: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of the k best-scored architectures that are among the k truly best. Ties break by position."""
    chosen, best = (np.argsort(-x, kind="stable")[:k] for x in (score, truth))
    return len(np.intersect1d(chosen, best)) / min(k, len(score))


def regret_at(score: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The best truth of all minus the best among the k best-scored, in the unit of truth."""
    return float(truth.max() - truth[np.argsort(-score, kind="stable")[:k]].max())


def paired_interval(gain: np.ndarray, resamples: int = 10_000) -> tuple[float, float] | tuple[None, None]:
    """95 % bootstrap interval of the mean of paired differences float[S]; (None, None) for a single one."""
    if len(gain) < 2:
        return None, None
    means = np.random.default_rng(0).choice(gain, (resamples, len(gain))).mean(1)  # [resamples]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def normal_scores(value: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The normal quantile float[..., E] of each value's place among labels float[..., n].

    A label's own place is (rank - 1/2) / n, ties by their mean rank; values beyond all labels share the
    outermost places.
    """
    n = label.shape[-1]
    sides = np.array([
        [np.searchsorted(np.sort(own), row, side) for side in ("left", "right")]
        for row, own in zip(value.reshape(-1, value.shape[-1]), label.reshape(-1, n))])  # [S, 2, E]
    below = sides.mean(1).clip(0.5, n - 0.5)  # [S, E]
    return stats.norm.ppf(below / n).reshape(value.shape)
