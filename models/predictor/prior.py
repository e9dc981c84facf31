"""The prior: a ranking of architectures before any label of their space, from the labels of other spaces.

    prior = load_prior(space.vocabulary)      # never one that saw a label of this space
    prior.score(batch, space.vocabulary)      # float[N], higher is better

A score is a weighted sum of six facts (`models.features.facts`). With few tables to learn from, the weights
are kept positive, and near to equal by a penalty: a fact helps in every space, the tables say how much.

T tables, F facts, n cells of a table.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from msgspec import Meta

from models.batch import Batch
from models.features.facts import FACTS, portable_facts
from models.features.vocabulary import Vocabulary
from runtime.checkpoint import load_checkpoint, need_finite, save_checkpoint, weights_digest
from runtime.errors import InputError
from runtime.files import ROOT, path_of

EQUALITY = 3.0  # weight of the penalty for unequal weights
SHIPPED = ROOT / "checkpoints" / "prior.pt"


class SourceTable(NamedTuple):
    """Labelled cells that a prior learns from.

    space       name of the space, whose tables share one vote
    operations  its vocabulary, by which it is recognised
    name        of the table, for the card
    facts       float[n, F]
    label       float[n], higher is better
    """

    space: str
    operations: Vocabulary
    name: str
    facts: torch.Tensor
    label: torch.Tensor


class Card(TypedDict):
    """What a prior has seen."""

    space: str
    operations: dict[str, dict[str, Any]]
    table: str
    labels: Annotated[int, Meta(ge=2)]


class PriorFile(TypedDict):
    """prior.pt: the weights learned from all tables, "", and from all but those of one space, by its name."""

    facts: list[str]
    weights: dict[str, torch.Tensor]
    cards: list[Card]


class Prior(NamedTuple):
    """Weights float[F] of the facts, and the cards of the tables that they were learned from."""

    weights: torch.Tensor
    cards: list[Card]

    def score(self, batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
        """N graphs over the vocabulary -> float[N]."""
        return self.of_facts(portable_facts(batch, vocabulary))

    def of_facts(self, facts: torch.Tensor) -> torch.Tensor:
        """Facts [..., F] -> score [...]."""
        return facts @ self.weights.to(facts.device)


def fit_weights(tables: Sequence[SourceTable], steps: int = 60) -> torch.Tensor:
    """float[F]: the positive weights that rank the cells within each table best.

    They minimise the logistic loss over all pairs of cells of a table (Bradley and Terry, 1952), averaged
    over the spaces, with a scale of its own for each table, plus EQUALITY times the variance of the
    logarithms of the weights, in units of the facts' standard deviations.
    """
    spaces = [table.space for table in tables]
    facts = [table.facts.double() for table in tables]
    unit = torch.stack([x.std(0) for x in facts]).amax(0).clamp(min=1e-6)  # [F]
    log_weight = torch.zeros(len(FACTS), dtype=torch.double, requires_grad=True)
    log_scale = torch.zeros(len(tables), dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_weight, log_scale], max_iter=steps, line_search_fn="strong_wolfe")

    def weights() -> torch.Tensor:  # their geometric mean is 1: the scale is the table's
        return (log_weight - log_weight.mean()).exp()

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = EQUALITY * log_weight.var(unbiased=False) + 0.01 * log_scale.square().sum()
        for table, x, scale in zip(tables, facts, log_scale):
            score = (x / unit) @ weights() * scale.exp() / len(FACTS)  # [n]
            better = (table.label[:, None] - table.label).sign()  # [n, n]
            unsure = F.softplus(-better * (score[:, None] - score)) * (better != 0)
            value = value + unsure.sum() / (better != 0).sum() / spaces.count(table.space)
        value.backward()
        return value

    optimiser.step(loss)
    return (weights().detach() / unit).float()


def fit_prior(tables: Sequence[SourceTable]) -> PriorFile:
    """Learns the prior of all tables, and for each space that of the others' tables."""
    left_out = ["", *dict.fromkeys(table.space for table in tables)]
    weights = {space: fit_weights([table for table in tables if table.space != space]) for space in left_out}
    cards = [Card(space=table.space, operations=dict(table.operations), table=table.name,
                  labels=len(table.label)) for table in tables]
    return PriorFile(facts=list(FACTS), weights=weights, cards=cards)


def save_prior(path: Path, content: PriorFile) -> None:
    save_checkpoint(path, **content)


def load_prior(vocabulary: Vocabulary, source: str | Path = "default") -> Prior:
    """The prior for a space: that without its own labels, if the file has learned from any.

    A space is recognised by its operations, by their names or by what they compute. source: a prior.pt, or
    default = the shipped one. Raises InputError for any other file.
    """
    path = SHIPPED if source == "default" else path_of(source)
    content = load_checkpoint(path, PriorFile)
    if content["facts"] != list(FACTS) or "" not in content["weights"]:
        raise InputError(f"{path} is a prior on other facts: make it anew with benchmarks.prior")
    need_finite(content["weights"], path)
    seen = [card["space"] for card in content["cards"] if alike(card["operations"], vocabulary)]
    without = seen[0] if seen else ""
    if without not in content["weights"] or content["weights"][without].shape != (len(FACTS),):
        raise InputError(f"{path} lacks the weights without {without}: make it anew with benchmarks.prior")
    cards = [card for card in content["cards"] if card["space"] != without]
    return Prior(content["weights"][without], cards)


def prior_digest(source: str, vocabulary: Vocabulary) -> str:
    """The SHA-256 of the prior's weights for a space, by which a resumed run knows it; empty without one."""
    return weights_digest({"weights": load_prior(vocabulary, source).weights}) if source else ""


def alike(some: Vocabulary, others: Vocabulary) -> bool:
    """Whether two vocabularies have the same operations, by name or by what they compute, in any order."""
    return some.keys() == others.keys() or bool(
        sorted(map(str, computed(some))) == sorted(map(str, computed(others))))


def computed(vocabulary: Vocabulary) -> list[list]:
    return [sorted(does.items(), key=str) for does in vocabulary.values()]
