"""What search.py asks of its predictor: networks and kernel regression as one posterior."""
import numpy as np
import pytest
import torch

from models.checkpoint import load_encoder
from models.metrics import kendall_tau
from models.predictor.fit import PredictorRecipe
from runtime.seeding import mix
from strategies import STRATEGIES
from strategies.base import Query
from strategies.posterior import PosteriorSettings, SearchPredictor, agreement
from toys.search import NB201, save_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "last.pt"
    save_encoder(path, 3)
    return load_encoder(str(path), NB201)


@pytest.fixture
def history(rng):
    """30 queries, labelled by how many 3x3 convolutions a cell has."""
    return [Query(i, 0, NB201.key(arch), NB201.text(arch), 60.0 + arch.count(3) + 0.01 * i, None, None, None,
                  arch)
            for i, arch in enumerate(dict.fromkeys(NB201.sample(30, rng)))]


@pytest.fixture
def candidates(rng):
    return list(dict.fromkeys(NB201.sample(81, np.random.default_rng(7))))


def predictor(checkpoint, own=None, seed=0, **recipe):
    small = {"members": 2, "width": 8, "layers": 1, "heads": 2, "epochs": 3}
    settings = PosteriorSettings(PredictorRecipe(**small | recipe), seed, own)
    return SearchPredictor(settings, NB201, checkpoint, CPU)


def asked(predictor, t, history, archs):
    """The posterior of architectures by the surrogate of round t."""
    archs = {NB201.key(arch): arch for arch in archs}
    return predictor.fit(t, history, archs)(archs)


def test_members_count_alike_whatever_their_scale(rng):
    """A ranking loss leaves scale and offset free: neither may decide the ranking."""
    scores = rng.normal(size=(3, 13)).astype(np.float32)
    scale, offset = np.array([[1.0], [1000.0], [0.01]]), np.array([[5.0], [-900.0], [0.0]])
    np.testing.assert_allclose(agreement(scores), agreement(scores * scale + offset), rtol=1e-5, atol=1e-5)


def test_mean_and_spread_are_those_of_the_standardised_members():
    scores = np.array([[-1.0, 0.0, 1.0, 3.0], [-1.0, 0.0, 2.0, 1.0]])
    standard = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    mean, std = agreement(scores)
    np.testing.assert_allclose(mean, standard.mean(0))
    np.testing.assert_allclose(std, standard.std(0))


def test_the_kernel_has_its_share_of_mean_and_variance(checkpoint, history, candidates):
    networks, kernel, both = (asked(predictor(checkpoint, kernel_share=share), 1, history, candidates)
                              for share in (0, 1, 0.3))
    # alone it has the scale of its labels, beside networks that of the architectures, as theirs has
    alone = predictor(checkpoint, kernel_share=1.0)
    everywhere = asked(alone, 1, history, [query.arch for query in history] + candidates).mean
    mean, std = (kernel.mean - everywhere.mean()) / everywhere.std(), kernel.std / everywhere.std()
    np.testing.assert_allclose(both.mean, 0.7 * networks.mean + 0.3 * mean, atol=1e-5)
    np.testing.assert_allclose(both.std**2, (0.7 * networks.std)**2 + (0.3 * std)**2, atol=1e-5)
    assert both.mean.shape == both.std.shape == (len(candidates),)
    assert not np.allclose(networks.mean, mean, atol=0.1)
    assert kernel.std.min() > 0


def test_the_best_is_the_highest_mean_of_the_history(checkpoint, history, candidates):
    """Asked of the history itself, the predictor says the same of it again."""
    ask = predictor(checkpoint, kernel_share=1.0)
    posterior = asked(ask, 1, history, [query.arch for query in history])
    assert posterior.best == pytest.approx(posterior.mean.max(), abs=1e-6)


def test_a_kernel_alone_fits_no_network_and_learns_to_rank(checkpoint, history, candidates, monkeypatch):
    monkeypatch.setattr("strategies.posterior.fit_ensemble", None)  # would raise
    truth = np.array([arch.count(3) for arch in candidates])
    for source in (checkpoint, None):
        posterior = asked(predictor(source, kernel_share=1.0), 1, history, candidates)
        assert kendall_tau(posterior.mean, truth) > 0.4


def test_what_the_kernel_sees_depends_on_no_weight_but_the_encoders(checkpoint, history, candidates):
    """Without a checkpoint it reads properties alone: another posterior, the same for every seed and
    round."""
    scratch = [asked(predictor(None, kernel_share=1.0, seed=seed), t, history, candidates)
               for seed, t in ((0, 1), (5, 9))]
    np.testing.assert_array_equal(scratch[0].mean, scratch[1].mean)
    pretrained = asked(predictor(checkpoint, kernel_share=1.0), 1, history, candidates)
    assert not np.allclose(pretrained.mean, scratch[0].mean, atol=0.05)


def test_networks_start_from_the_checkpoint(checkpoint, history, candidates):
    pretrained, scratch = (asked(predictor(source, kernel_share=0.0), 1, history, candidates)
                           for source in (checkpoint, None))
    assert not np.allclose(pretrained.mean, scratch.mean, atol=1e-3)


def test_a_predictor_of_its_own_takes_the_place_of_both(history, candidates):
    own = STRATEGIES["xgb"].predictor
    ask = predictor(None, own, kernel_share=0.7)
    posterior = asked(ask, 1, history, candidates)
    seeds = [mix(ask.settings.seed, 1, member) for member in range(2)]
    table = ask.encode([query.arch for query in history] + candidates)
    known = np.array([query.validation for query in history])
    mean, std = agreement(own(table, NB201.vocabulary, known, seeds))
    np.testing.assert_array_equal(posterior.mean, mean[len(history):])
    np.testing.assert_array_equal(posterior.std, std[len(history):])
