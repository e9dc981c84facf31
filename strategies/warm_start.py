"""Warm start: labels of another data set, search or space, as one more ranking that a search starts from.

    old = read_source(settings, space, metric)    # warm_start = runs/cifar10/history.jsonl
    knowledge.add_ranking(Ranking(old, knowledge))

A Gaussian process on the old labels ranks the new space, as far as these labels predict each other. How far
that ranking is trusted, the new labels decide (`models.predictor.gaussian_process`): a useful one saves
queries, a useless one fades.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import spaces
from models.batch import Batch
from models.checkpoint import UNIVERSAL, load_encoder
from models.predictor.background import REFERENCE, Background, Features
from models.predictor.fit import frozen_encoder
from models.predictor.gaussian_process import GaussianProcess, Scale, length_scales
from runtime.errors import InputError
from runtime.files import path_of, whole_lines
from runtime.guarded import checked_json, read_checked
from spaces import Space
from spaces.labels.read import read_labels
from spaces.metrics import Metric
from strategies.history import HistoryLine
from strategies.knowledge import Knowledge, beliefs

MOST = 600  # old labels that are read; more only cost time
PORTABLE = ("facts", "embedding")  # the features that mean the same in every space


class OldLabels(NamedTuple):
    """n labels of architectures of a space; higher is better."""

    space: Space
    keys: list[str]
    label: np.ndarray  # float[n]

    @property
    def digest(self) -> str:
        """SHA-256 by which a resumed search checks that it starts from the same labels."""
        return hashlib.sha256("\n".join(self.keys).encode() + self.label.tobytes()).hexdigest()


def read_source(settings: Any, space: Space, metric: Metric) -> OldLabels | None:
    """Reads the labels that --warm_start names; None if it is empty.

    settings: with warm_start, warm_labels and the seed, by which a part is drawn of more labels. Raises
    InputError for faults of the file, and for fewer than two labels.
    """
    source = settings.warm_start
    if not source:
        return None
    named, _, file = source.rpartition("@")
    space = spaces.get(named, getattr(space, "cell_marks", True)) if named else space
    keys, label = read_history(path_of(file), space) if is_history(file) else read_table(file, space, metric)
    rng = np.random.default_rng([settings.seed, 103])
    rows = np.sort(rng.permutation(len(keys))[:settings.warm_labels or MOST])
    if len(rows) < 2:
        raise InputError(f"--warm_start {source}: it has {len(rows)} labels, and two are needed to rank")
    return OldLabels(space, [keys[row] for row in rows], label[rows])


def is_history(file: str) -> bool:
    return path_of(file).name == "history.jsonl"


def read_history(path: Path, space: Space) -> tuple[list[str], np.ndarray]:
    """Keys and utilities of the trainings of a search that did not fail."""
    if not path.is_file():
        raise InputError(f"--warm_start {path}: no such file: give the history.jsonl of a search, or a table")
    mend = f"give a history of {space.name}, or name its space: SPACE@{path}"
    lines = [checked_json(line, HistoryLine, f"{path}:{number}", mend)
             for number, line in enumerate(whole_lines(path), 1)]
    config = path.with_name("config.json")
    stored = read_checked(config, dict[str, Any], mend) if config.exists() else {}
    sign = -1.0 if stored.get("lower_is_better") is True else 1.0
    lines = [line for line in lines if line.validation is not None]
    try:
        space.encode_keys([line.key for line in lines])
    except InputError as error:
        raise InputError(f"--warm_start {path}: {error}: {mend}") from None
    return [line.key for line in lines], sign * np.array([line.validation for line in lines], float)


def read_table(source: str, space: Space, metric: Metric) -> tuple[list[str], np.ndarray]:
    """Keys and validation values, higher is better, of a label table FILE or FILE:DATASET."""
    file, _, dataset = source.rpartition(":") if not path_of(source).is_file() else (source, "", "")
    if not file:
        file, dataset = source, ""
    table = read_labels(file, space, dataset or "cifar10", metric=metric)
    table = table.select(~np.isnan(table.val))
    return table.keys, table.utility("val")


class Ranking:
    """Ranks architectures of the search's space by the old labels.

    Labels of the same space are ranked by all that the search knows of an architecture, those of another by
    the facts and by the embedding of the encoder for all spaces, each standardised over its own space.
    """

    def __init__(self, old: OldLabels, knowledge: Knowledge):
        """knowledge: of the search's space."""
        target = knowledge.space
        self.same = old.space.ops == target.ops and old.space.name == target.name
        table = Batch.of(old.space.encode_keys(old.keys)).to(knowledge.device)
        if self.same:
            self.known_of, scales = None, knowledge.scales
            seen = knowledge.compute(table)
        else:
            known_of, scales = portable(old.space, knowledge.device)
            seen = known_of(table)
            self.known_of, here = portable(target, knowledge.device)
        self.process = GaussianProcess.fit(
            {name: feature[None] for name, feature in seen.items()}, scales, old.label[None], beliefs(0))
        self.worth = max(0.0, correlation(self.process.left_out(0), self.process.targets[0]))
        if not self.same:
            self.process.rescale(here)

    def __call__(self, known: Features, table: Batch) -> torch.Tensor:
        """The ranking [B, 1] of architectures, of which this is known."""
        return self.worth * self.process(known if self.same else self.known_of(table))[0][:, None]


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Pearson's, of [n] each; 0 if either is constant."""
    found = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
    return found if np.isfinite(found) else 0.0


def portable(space: Space, device: torch.device) -> tuple[Callable[[Batch], Features], dict[str, Scale]]:
    """A function of graphs of the space to the features that mean the same in all, and their scales."""
    universal = load_encoder(str(UNIVERSAL), space)
    background = Background(space.vocabulary, frozen_encoder(universal, universal["weights"])).to(device)

    def known_of(table: Batch) -> Features:
        known = background(table)
        return {name: known[name] for name in PORTABLE}

    anywhere = Batch.of(space.encode(space.sample(REFERENCE, np.random.default_rng(0)))).to(device)
    return known_of, length_scales(known_of(anywhere))
