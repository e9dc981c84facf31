"""Evaluation protocols: training label, target, and the split into training and evaluation architectures.

Training, selection and evaluation architectures are disjoint by construction: evaluation takes only rows that
nothing else reads.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from runtime.errors import InputError
from spaces.labels.read import Labels


class RankingProtocol(NamedTuple):
    """Columns of a label table ("val" or "test"); `fallback` is the target if there is no test accuracy."""

    train: str
    target: str
    fallback: str | None = None


RANKING_PROTOCOLS = {
    # a space of one's own: validation trains, test (else validation) is ranked
    "val-test": RankingProtocol("val", "test", "val"),
    # NAS-Bench-101: one run's validation accuracy trains, mean test accuracy is ranked
    "tnasp": RankingProtocol("val", "test"),
    # NAS-Bench-101, the paper's own: one run's validation accuracy trains and is ranked
    "gmae": RankingProtocol("val", "val"),
    # NAS-Bench-201: mean validation accuracy trains, test accuracy (else validation) is ranked
    "nb201": RankingProtocol("val", "test", "val"),
    # NAS-Bench-301: a surrogate's validation accuracy trains and is ranked
    "nb301": RankingProtocol("val", "val"),
}


class Split(NamedTuple):
    """Rows to train on, int64[n], and to evaluate on, int64[n_eval], and the name of the target's column."""

    train: np.ndarray
    evaluation: np.ndarray
    target: str


def split(labels: Labels, protocol: str, n: int, seed: int) -> Split:
    """Draws n rows with the training label to train on; all other rows with the target are for evaluation.

    For one seed the draws nest: the first n of one permutation. n = 0 trains nothing and evaluates all.
    """
    rule, target = RANKING_PROTOCOLS[protocol], target_of(labels, protocol)
    pool = np.flatnonzero(~np.isnan(getattr(labels, rule.train)))  # [P]
    truth = np.flatnonzero(~np.isnan(getattr(labels, target)))  # [T]
    if n != 0 and not 2 <= n <= len(pool):
        raise InputError(f"{n} training labels asked for, {labels.name} has {len(pool)} {rule.train} "
                         "values: "
                         + (f"give 2..{len(pool)}, or 0" if len(pool) > 1 else
                            "name another column by --metric"))
    train = np.random.default_rng([seed, 101]).permutation(pool)[:n]  # [n]
    if n and np.ptp(getattr(labels, rule.train)[train]) == 0:
        raise InputError(f"all {n} training labels of seed {seed} are equal, so there is no ranking to learn:"
                         f" check the {rule.train} values of {labels.name:.80}, or give more labels")
    evaluation = np.setdiff1d(truth, train)  # [n_eval]
    if len(evaluation) < 2:
        raise InputError(f"{n} training labels leave {len(evaluation)} architectures to evaluate on: "
                         "lower --finetune_train_samples")
    if np.ptp(getattr(labels, target)[evaluation]) == 0:
        raise InputError(f"all {target} values to rank are equal, so there is no ranking: check those of "
                         f"{labels.name:.80}")
    return Split(train, evaluation, target)


def target_of(labels: Labels, protocol: str) -> str:
    """The column of this table that the protocol ranks; raises InputError if no architecture has it."""
    rule = RANKING_PROTOCOLS[protocol]
    target = rule.target
    if (rule.fallback or not labels.metric.is_accuracy) and np.isnan(getattr(labels, target)).all():
        target = rule.fallback or "val"
    if np.isnan(getattr(labels, target)).all():
        raise InputError(f"protocol {protocol} ranks {target} {labels.metric.name}, and {labels.name} has "
                         "none: choose another --protocol or --labels")
    return target
