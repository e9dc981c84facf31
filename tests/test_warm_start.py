"""--warm_start: old labels of another data set, search or space, trusted as far as the new ones agree."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import spaces
from models.metrics import kendall_tau
from models.predictor.background import Background
from models.predictor.fit import PredictorRecipe
from runtime.errors import InputError
from spaces.metrics import Metric
from strategies.base import Query
from strategies.knowledge import Knowledge
from strategies.posterior import PosteriorSettings, SearchPredictor
from strategies.settings import SearchSettings
from strategies.warm_start import OldLabels, Ranking, read_source
from toys.search import NB201, lines, run, write_labels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def archs() -> list:
    return list(dict.fromkeys(NB201.sample(120, np.random.default_rng(0))))


def worth(archs) -> np.ndarray:
    """A value that depends on where the 3x3 convolutions stand."""
    return np.array([60 + 5 * arch.count(3) + 3 * (arch[0] == 1) for arch in archs], float)


def old_labels(archs, label) -> OldLabels:
    return OldLabels(NB201, [NB201.key(arch) for arch in archs], label)


def fitted(archs, old, known, label):
    """The mean of a search's process that starts from old labels and knows some new ones."""
    predictor = SearchPredictor(
        PosteriorSettings(PredictorRecipe(kernel_share=1.0, prior=""), 0, None, old), NB201, None, CPU)
    history = [toy_query(arch, value) for arch, value in zip(known, label)]
    surrogate = predictor.fit(1, history, {})
    return predictor, surrogate({NB201.key(arch): arch for arch in archs}).mean


def toy_query(arch, value) -> Query:
    return Query(0, 0, NB201.key(arch), NB201.text(arch), value, None, None, None, arch)


def test_old_labels_rank_before_there_is_a_new_one(archs):
    old, new = archs[:60], archs[60:]
    predictor, _ = fitted(new, old_labels(old, worth(old)), new[:2], worth(new[:2]))
    assert predictor.has_prior
    assert kendall_tau(predictor.prior_scores(new), worth(new)) > 0.7


def test_useful_labels_are_trusted_and_contrary_ones_fade(archs):
    old, known, rest = archs[:50], archs[50:62], archs[62:]
    rng = np.random.default_rng(1)
    sources = {"useful": worth(old), "useless": rng.normal(size=50), "contrary": -worth(old)}
    tau = {}
    for name, label in sources.items():
        _, mean = fitted(rest, old_labels(old, label), known, worth(known))
        tau[name] = kendall_tau(mean, worth(rest))
    _, mean = fitted(rest, None, known, worth(known))
    alone = kendall_tau(mean, worth(rest))
    assert tau["useful"] > max(alone, tau["useless"], tau["contrary"]) + 0.05
    assert tau["useless"] > alone - 0.1


def test_labels_that_do_not_predict_each_other_say_nothing(archs):
    old, shuffled = archs[:100], np.random.default_rng(1).permutation(worth(archs[:100]))
    spread, agreed = [], []
    for label in (worth(old), shuffled):
        knowledge = fitted(archs[100:], old_labels(old, label), archs[:2], worth(archs[:2]))[0].knowledge
        ranking = knowledge.of({NB201.key(arch): arch for arch in archs[100:]})["source"]
        spread.append(float(ranking.std()))
        agreed.append(knowledge._ranking.worth)
    assert agreed[0] > 0.8 and agreed[1] < 0.25
    assert spread[1] < 0.1 * spread[0]


def test_labels_of_another_space_rank_by_what_operations_compute():
    """Cells of a chain space that like heavy operations teach as much about NAS-Bench-201."""
    other = spaces.get("nasbench_macro")
    cells = list(dict.fromkeys(other.sample(80, np.random.default_rng(0))))
    old = OldLabels(other, list(map(other.key, cells)), np.array(list(map(sum, cells)), float))
    knowledge = Knowledge(NB201, Background(NB201.vocabulary), CPU)
    knowledge.add_ranking(Ranking(old, knowledge))
    new = list(dict.fromkeys(NB201.sample(100, np.random.default_rng(1))))
    ranked = knowledge.compute(knowledge.encode(new))["source"][:, 0].numpy()
    convolutions = np.array([2.0 * arch.count(3) + arch.count(2) for arch in new])
    assert kendall_tau(ranked, convolutions) > 0.2


# Files ------------------------------------------------------------------------------------------------------

@pytest.fixture
def table(tmp_path, archs) -> str:
    return write_labels(tmp_path / "old.csv", map(NB201.key, archs), worth(archs), worth(archs))


def read(source: str, most: int = 0):
    return read_source(SearchSettings(warm_start=source, warm_labels=most), NB201, Metric())


def test_a_table_and_a_data_set_of_it(tmp_path, archs):
    path = tmp_path / "two.csv"
    rows = [f"{NB201.key(arch)},{50 + i / 100},{60 - i / 100}" for i, arch in enumerate(archs)]
    path.write_text("\n".join(["arch,cifar10_val_accuracy,cifar100_val_accuracy", *rows]))
    ten, hundred = (read(f"{path}{end}") for end in (":cifar10", ":cifar100"))
    assert (np.diff(ten.label) > 0).all() and (np.diff(hundred.label) < 0).all()
    assert ten.keys == list(map(NB201.key, archs)) and ten.digest != hundred.digest
    assert len(read(f"{path}:cifar100", 30).keys) == 30


def test_a_history_with_failures_and_of_a_loss(tmp_path, archs):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [{"query": i + 1, "round": 0, "key": NB201.key(arch), "architecture": NB201.text(arch),
              "validation": None if i == 2 else float(i), "test": None, "score": None, "cost": None}
             for i, arch in enumerate(archs[:6])]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    old = read(str(folder / "history.jsonl"))
    assert old.label.tolist() == [0, 1, 3, 4, 5] and NB201.key(archs[2]) not in old.keys
    (folder / "config.json").write_text('{"lower_is_better": true}')
    assert read(str(folder / "history.jsonl")).label.tolist() == [0, -1, -3, -4, -5]


@pytest.mark.parametrize("source, words", [
    ("missing/history.jsonl", "no such file"), ("missing.csv", "missing.csv"), ("cats@TABLE", "cats"),
    ("nasbench101@TABLE", "NAS-Bench-101"), ("TABLE:cifar7", "cifar7")])
def test_wrong_sources_are_refused_in_one_line(table, source, words):
    with pytest.raises(InputError) as error:
        read(source.replace("TABLE", table))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_search_starts_warm_and_is_known_by_the_old_labels(tmp_path, table, archs):
    new = list(dict.fromkeys(NB201.sample(60, np.random.default_rng(5))))
    labels = write_labels(tmp_path / "new.csv", map(NB201.key, new), worth(new), worth(new))
    flags = ["--search_algo", "bo", "--kernel_share", "1", "--N", "12", "--prior", ""]
    cold, warm = tmp_path / "cold", tmp_path / "warm"
    run(cold, labels, *flags)
    run(warm, labels, *flags, "--warm_start", table)
    first = [np.mean([line["validation"] for line in lines(folder)[:6]]) for folder in (cold, warm)]
    assert first[1] > first[0]
    with pytest.raises(InputError, match="warm_start"):
        run(warm, labels, *flags, "--resume")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(table).read_bytes())
    assert run(warm, labels, *flags, "--warm_start", str(copy), "--resume")["N"] == 12
