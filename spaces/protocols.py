"""Evaluation protocols: which label trains, which is the target, and which architectures are whose.

Training, selection and evaluation architectures are disjoint by construction: evaluation takes only rows that nothing read.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spaces.base import InputError
from spaces.labels import Labels


class Protocol(NamedTuple):
    """Columns of a label table ("val" or "test"); `fallback` is the target of a table that has no test accuracies."""

    train: str
    target: str
    fallback: str | None = None


PROTOCOLS = {
    "tnasp": Protocol("val", "test"),  # NAS-Bench-101: one run's validation accuracy trains, mean test accuracy is ranked
    "gmae": Protocol("val", "val"),  # NAS-Bench-101, the paper's own: one run's validation accuracy, both times
    "nb201": Protocol("val", "test", "val"),  # NAS-Bench-201: mean validation accuracy trains
    "nb301": Protocol("val", "val"),  # NAS-Bench-301: a surrogate's validation accuracy, both times
}


class Split(NamedTuple):
    """Rows of the label table: int64[n] trained on, int64[n_eval] evaluated on; and the target's column name."""

    train: np.ndarray
    evaluation: np.ndarray
    target: str


def split(labels: Labels, protocol: str, n: int, seed: int) -> Split:
    """n training rows drawn at random from the rows with the training label; every other row with the target evaluates.

    For one seed the draws nest: the first n of one permutation.
    """
    rule, target = PROTOCOLS[protocol], target_of(labels, protocol)
    pool = np.flatnonzero(~np.isnan(getattr(labels, rule.train)))  # [P]
    truth = np.flatnonzero(~np.isnan(getattr(labels, target)))  # [T]
    if not 2 <= n <= len(pool):
        raise InputError(f"{n} training labels asked for, {labels.name} has {len(pool)} {rule.train} accuracies: "
                         f"give 2..{len(pool)}")
    train = np.random.default_rng([seed, 101]).permutation(pool)[:n]  # [n]
    evaluation = np.setdiff1d(truth, train)  # [n_eval]
    if len(evaluation) < 2:
        raise InputError(f"{n} training labels leave {len(evaluation)} architectures to evaluate on: "
                         "lower --finetune_train_samples")
    return Split(train, evaluation, target)


def target_of(labels: Labels, protocol: str) -> str:
    """The column of this table that the protocol ranks. InputError where no architecture has it."""
    rule = PROTOCOLS[protocol]
    target = rule.target
    if rule.fallback and np.isnan(getattr(labels, target)).all():
        target = rule.fallback
    if np.isnan(getattr(labels, target)).all():
        raise InputError(f"protocol {protocol} ranks {target} accuracy, and {labels.name} has none: "
                         "choose another --protocol or --labels")
    return target
