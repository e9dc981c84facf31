"""The front door in Python: fitted, asked, saved and loaded; the same scores as finetune.py's own path."""
from __future__ import annotations

import numpy as np
import pytest

import finetune
from models.batch import Batch
from models.checkpoint import load_encoder
from models.metrics import kendall_tau
from models.predictor import Predictor
from models.predictor.background import REFERENCE
from models.predictor.fit import Examples, PredictorRecipe, fit_predictor, score_cells
from runtime.errors import InputError
from toys.cells import ARCHS, KEYS, SPACE

pytestmark = pytest.mark.slow  # a predictor of five networks is fitted
N = 24
ACCURACY = np.array([90 + 0.5 * arch.count(3) + 0.2 * arch.count(2) for arch in ARCHS])


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.fit(SPACE, KEYS[:N], ACCURACY[:N])


def test_it_ranks_other_cells(predictor):
    assert kendall_tau(predictor.score(KEYS[N:]), ACCURACY[N:]) > 0.5


def test_values_and_texts_score_alike(predictor):
    texts, values = predictor.score(KEYS[:7]), predictor.score(ARCHS[:7])
    assert texts.shape == (7,) and (texts == values).all()


def test_it_is_what_finetune_fits(predictor):
    anywhere = SPACE.sample(REFERENCE, np.random.default_rng(0))
    table = Batch.of(SPACE.encode([*ARCHS[:N], *anywhere]))
    examples = Examples(table, np.arange(N)[None], ACCURACY[None, :N], [0])
    blended = fit_predictor(PredictorRecipe(), SPACE.vocabulary, load_encoder("default", SPACE), examples)
    assert np.allclose(score_cells(blended, table, np.arange(N))[0], predictor.score(KEYS[:N]), atol=1e-5)


def test_the_posterior_is_surer_of_labelled_cells(predictor):
    mean, std = predictor.posterior(KEYS)
    assert mean.shape == std.shape == (len(KEYS),) and (std > 0).all()
    assert std[:N].mean() < std[N:].mean() and kendall_tau(mean[N:], ACCURACY[N:]) > 0.5


def test_it_is_loaded_as_it_was_saved_and_finetune_reads_it_too(predictor, tmp_path, capsys):
    predictor.save(tmp_path / "p.pt")
    loaded = Predictor.load(tmp_path / "p.pt")
    assert loaded.space.name == SPACE.name and (loaded.score(KEYS[:9]) == predictor.score(KEYS[:9])).all()
    for stored, fitted in zip(loaded.posterior(KEYS[:9]), predictor.posterior(KEYS[:9])):
        assert np.array_equal(stored, fitted)
    loaded.save(tmp_path / "again.pt")
    assert (Predictor.load(tmp_path / "again.pt").score(KEYS[:9]) == predictor.score(KEYS[:9])).all()
    (tmp_path / "cells.txt").write_text("\n".join(KEYS[:3]))
    files = ["--score", str(tmp_path / "cells.txt"), "--predictor", str(tmp_path / "p.pt")]
    finetune.main([*files, "--device", "cpu"])
    assert f"{predictor.score(KEYS[:3]).max():.4f}" in capsys.readouterr().out


def test_from_scratch_with_two_seeds():
    predictor = Predictor.fit(SPACE, ARCHS[:8], ACCURACY[:8], encoder="", seeds=2)
    assert predictor.blended.seeds == 2 and predictor.score(ARCHS[8:12]).shape == (4,)
    assert predictor.posterior(ARCHS[8:12])[1].shape == (4,)


@pytest.mark.parametrize("archs, accuracy", [
    (KEYS[:3], [1.0, 2.0]), (KEYS[:1], [1.0]), (KEYS[:2], [1.0, np.nan]), (KEYS[:2], [[1.0], [2.0]])])
def test_labels_that_do_not_fit(archs, accuracy):
    with pytest.raises(InputError, match="finite accuracies"):
        Predictor.fit(SPACE, archs, accuracy)


def test_a_text_that_names_no_architecture(predictor):
    with pytest.raises(InputError, match="no NAS-Bench-201 cell"):
        predictor.score(["|nothing|"])


def test_another_file_is_no_predictor(tmp_path):
    (tmp_path / "p.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        Predictor.load(tmp_path / "p.pt")
