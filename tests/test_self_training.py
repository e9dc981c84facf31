"""Self-training: a second predictor learns the scores of the first, then the labels."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import spaces
from models import checkpoint
from models.batch import Batch
from models.metrics import kendall_tau
from models.predictor import self_training
from models.predictor.fit import Examples, fit_predictor, score_cells
from models.predictor.self_training import (
    ENOUGH,
    MOST,
    TaughtRecipe,
    all_steps,
    fit_and_teach,
    pupils,
    universal_digest,
    unlabelled,
)

SPACE = spaces.get("nasbench201")
TABLE = Batch.of(SPACE.table(60, np.random.default_rng(0)))
WORTH = (TABLE.ops == 3).sum(1).double().numpy()  # of a cell: how often one of the operations stands in it
RECIPE = TaughtRecipe(width=16, layers=1, heads=2, members=2, epochs=60, prior="", unlabelled=3)


@pytest.fixture
def few(monkeypatch):
    """Thirty labels are enough."""
    monkeypatch.setattr(self_training, "ENOUGH", 30)


def examples(seeds: list[int]) -> Examples:
    rows = np.stack([np.random.default_rng(seed).permutation(60)[:30] for seed in seeds])
    return Examples(TABLE, rows, WORTH[rows] + 0.01 * rows, seeds)


@pytest.mark.parametrize("recipe", [
    RECIPE, dataclasses.replace(RECIPE, kernel_share=0.0), dataclasses.replace(RECIPE, prior="default")])
def test_the_second_predictor_ranks_as_well_and_every_step_is_reported(few, recipe):
    reported, given = [], examples([0, 1])
    student = fit_and_teach(recipe, SPACE, None, given, lambda: reported.append(1))
    teacher = fit_predictor(recipe, SPACE.vocabulary, None, given)
    assert len(reported) == all_steps(recipe, 30) > all_steps(dataclasses.replace(recipe, unlabelled=0), 30)
    first, second = score_cells(teacher, TABLE), score_cells(student, TABLE)
    for row, one, two in zip(given.rows, first, second):
        left = np.setdiff1d(np.arange(60), row)
        assert kendall_tau(two[left], WORTH[left]) > 0.4
        assert 0.3 < kendall_tau(one[left], two[left]) < 1  # another predictor of the same opinion


def test_without_unlabelled_cells_there_is_no_second_one(few):
    none, given = dataclasses.replace(RECIPE, unlabelled=0), examples([0])
    expected = score_cells(fit_predictor(none, SPACE.vocabulary, None, given), TABLE)
    assert np.array_equal(score_cells(fit_and_teach(none, SPACE, None, given), TABLE), expected)
    process = dataclasses.replace(RECIPE, kernel_share=1.0)  # nor where no networks are fitted
    assert fit_and_teach(process, SPACE, None, given).ensemble is None
    assert all_steps(process, 30) == 0


def test_a_seed_is_taught_alike_in_any_company(few):
    together = score_cells(fit_and_teach(RECIPE, SPACE, None, examples([0, 1])), TABLE)[1]
    alone = score_cells(fit_and_teach(RECIPE, SPACE, None, examples([1])), TABLE)[0]
    assert np.allclose(together, alone, atol=1e-3)


def test_the_teachers_opinion_decides_what_the_labels_leave_open(few, monkeypatch):
    """A teacher that says the opposite makes a student that ranks worse."""
    given, honest = examples([0]), score_cells
    true = honest(fit_and_teach(RECIPE, SPACE, None, given), TABLE)[0]
    monkeypatch.setattr("models.predictor.self_training.score_cells", lambda *args: -honest(*args))
    torch.manual_seed(0)
    misled = honest(fit_and_teach(RECIPE, SPACE, None, given), TABLE)[0]
    left = np.setdiff1d(np.arange(60), given.rows[0])
    assert kendall_tau(misled[left], WORTH[left]) < kendall_tau(true[left], WORTH[left]) - 0.05


def test_a_run_that_reads_the_universal_encoder_knows_it():
    assert len(universal_digest(RECIPE, ENOUGH, SPACE)) == 64
    assert universal_digest(RECIPE, ENOUGH - 1, SPACE) == ""


def test_the_number_of_unlabelled_cells_is_bounded():
    assert unlabelled(RECIPE, ENOUGH) == 3 * ENOUGH and unlabelled(RECIPE, 10**5) == MOST
    assert unlabelled(RECIPE, ENOUGH - 1) == 0


def test_two_of_five_members_start_from_the_universal_encoder():
    recipe, members = TaughtRecipe(), list(range(10))  # of two seeds
    own, universal = checkpoint.load_encoder("default", SPACE), checkpoint.load_encoder(
        str(checkpoint.UNIVERSAL), SPACE)

    def started(source: dict, network: torch.nn.Module) -> bool:
        return all(torch.equal(value, source["weights"][name])
                   for name, value in network.encoder.state_dict().items())

    networks = pupils(recipe, SPACE, own, members)
    assert [started(own, network) for network in networks] == 2 * [True, True, True, False, False]
    assert [started(universal, network) for network in networks] == 2 * [False, False, False, True, True]
    assert not any(started(universal, network) for network in pupils(recipe, SPACE, None, members))
