"""The prior: learned on other spaces' labels, never on those of its own, and usable without any."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import finetune
import spaces
from benchmarks import prior as benchmark
from models.batch import Batch
from models.features.facts import FACTS, portable_facts
from models.metrics import kendall_tau
from models.predictor import Predictor
from models.predictor.prior import SourceTable, fit_prior, fit_weights, load_prior, save_prior
from runtime.errors import InputError
from toys.cells import ARCHS, CELLS, KEYS, SPACE, toy


def source(name: str, label: torch.Tensor, facts: torch.Tensor) -> SourceTable:
    return SourceTable(name, spaces.get(name).vocabulary, name, facts, label)


@pytest.fixture
def learned(tmp_path, rng) -> dict:
    """A prior of three spaces, each of which ranks by another fact alone."""
    facts = torch.as_tensor(rng.normal(size=(3, 60, len(FACTS)))).float()
    names = ("nasbench101", "nasbench201", "darts")
    content = fit_prior([source(name, 3 * x[:, i], x) for i, (name, x) in enumerate(zip(names, facts))])
    save_prior(tmp_path / "prior.pt", content)
    return content


# What it learns ---------------------------------------------------------------------------------------------

def test_facts_of_a_cell_by_hand():
    """A 3x3 and a 1x1 convolution behind each other, a pooling beside them, all others `none`."""
    cell = SPACE.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|skip_connect~2|")
    [facts] = portable_facts(Batch.of(SPACE.encode([cell])), SPACE.vocabulary)
    expected = np.array([10, 1 + 2, 1 + 1, 1 + 2, 1 + 3, 1 + 1])
    assert facts.numpy() == pytest.approx(np.log(expected) * [1, 1, 1, 1, -1, -1], abs=1e-6)


def test_facts_do_not_depend_on_the_names_of_operations():
    space = spaces.get("nasbench_macro")
    vocabulary = dict(zip("abcdefgh", space.vocabulary.values()))
    table = Batch.of(space.table(50, np.random.default_rng(0)))
    assert torch.equal(portable_facts(table, vocabulary), portable_facts(table, space.vocabulary))


def test_the_weights_are_positive_and_lean_to_what_ranks_the_tables(rng):
    facts = torch.as_tensor(rng.normal(size=(80, len(FACTS)))).float()
    weights = fit_weights([source("darts", facts.sum(1) + 2 * facts[:, 2] - 2 * facts[:, 4], facts)])
    assert (weights > 0).all() and weights.argmax() == 2 and weights.argmin() == 4


# What it has seen -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts"])
def test_the_prior_of_a_space_never_saw_its_labels(learned, tmp_path, rng, name):
    """Other labels of the space change its prior in no bit, and those of the others do."""
    path = tmp_path / "prior.pt"
    before = load_prior(spaces.get(name).vocabulary, path)
    assert name not in {card["space"] for card in before.cards}
    facts = torch.as_tensor(rng.normal(size=(3, 60, len(FACTS)))).float()
    tables = [source(other, x[:, 0], x) for other, x in zip(("nasbench101", "nasbench201", "darts"), facts)]
    another = next(table.space for table in tables if table.space != name)
    for changed, same in ((name, True), (another, False)):
        mixed = [table if table.space != changed else table._replace(label=-table.label) for table in tables]
        first, second = (fit_prior(some)["weights"][name] for some in (tables, mixed))
        assert torch.equal(first, second) == same


def test_a_space_is_recognised_by_what_its_operations_compute(learned, tmp_path):
    path, vocabulary = tmp_path / "prior.pt", spaces.get("nasbench201").vocabulary
    renamed = {f"op{i}": does for i, does in enumerate(reversed(vocabulary.values()))}
    assert torch.equal(load_prior(renamed, path).weights, learned["weights"]["nasbench201"])
    assert torch.equal(load_prior(spaces.get("nasbench301").vocabulary, path).weights,
                       learned["weights"]["darts"])
    unknown = load_prior(spaces.get("nasbench_macro").vocabulary, path)
    assert torch.equal(unknown.weights, learned["weights"][""]) and len(unknown.cards) == 3


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench301", "nasbench_macro"])
def test_the_shipped_prior_has_seen_other_spaces_alone(name):
    space = spaces.get(name)
    cards = load_prior(space.vocabulary).cards
    assert len({card["space"] for card in cards}) == 3 and name not in {card["space"] for card in cards}


def test_a_damaged_file_is_refused(learned, tmp_path):
    path = tmp_path / "bad.pt"
    for change in ({"facts": ["other"]}, {"weights": {"": torch.full((6,), torch.nan)}}, {"weights": {}}):
        save_prior(path, learned | change)
        with pytest.raises(InputError, match="bad.pt"):
            load_prior(SPACE.vocabulary, path)


def labels(folder: Path) -> str:
    """A label table of the toy cells."""
    rows = "".join(f"{key},{80 + y / 3}\n" for key, y in zip(KEYS, toy()[-1]))
    (folder / "l.csv").write_text("arch,val_accuracy\n" + rows)
    return str(folder / "l.csv")


# Use --------------------------------------------------------------------------------------------------------

def test_without_labels_python_and_the_script_rank_by_the_prior(tmp_path, capsys):
    truth = toy()[-1]
    result = finetune.main(["--labels", labels(tmp_path), "--finetune_train_samples", "0", "--save",
                            str(tmp_path / "run"), "--threads", "1", "--device", "cpu"])
    table = Batch.of(SPACE.encode(ARCHS))
    scores = load_prior(SPACE.vocabulary).score(table, SPACE.vocabulary).numpy()
    assert result["tau_mean"] == pytest.approx(kendall_tau(scores, truth), abs=0.01)
    assert result["n_eval"] == CELLS
    predictor = Predictor.prior(SPACE)
    assert kendall_tau(predictor.score(ARCHS), scores) > 0.999
    assert {card["space"] for card in predictor.about["cards"]} == {
        "nasbench101", "nasbench301", "nasbench_macro"}
    predictor.save(tmp_path / "p.pt")
    for path in (tmp_path / "p.pt", tmp_path / "run" / "predictor.pt"):
        assert kendall_tau(Predictor.load(path).score(ARCHS), scores) > 0.999


def test_with_neither_labels_nor_prior_there_is_nothing_to_rank_by(tmp_path):
    with pytest.raises(InputError, match="--prior"):
        finetune.main(["--labels", labels(tmp_path), "--finetune_train_samples", "0", "--prior", "", "--save",
                       str(tmp_path / "run")])


def test_the_benchmark_learns_it_from_tables(tmp_path, rng):
    macro = spaces.get("nasbench_macro")
    archs = list(dict.fromkeys(macro.sample(80, rng)))
    (tmp_path / "b.csv").write_text("arch,val_accuracy\n" + "".join(
        f'"{macro.key(arch)}",{60 + sum(arch)}\n' for arch in archs))
    tables = f"nasbench201={labels(tmp_path)},nasbench_macro={tmp_path / 'b.csv'}"
    report = benchmark.main(
        ["--tables", tables, "--out", str(tmp_path / "p.pt"), "--record", str(tmp_path / "r.json")])
    assert [row["tau"]["never saw the space"] > 0.3 for row in report["rows"]] == [True, True]
    assert all(row["target"] not in "".join(row["learned_from"]) for row in report["rows"])
