"""finetune.py from its flags to its files: the result, what training reads, what each setting does."""
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

import finetune
import pretrain
import spaces
from models.batch import Batch
from models.predictor.file import load_predictor
from models.predictor.fit import score_cells
from models.predictor.losses import LOSSES
from spaces.labels.protocols import RANKING_PROTOCOLS, Split, split
from spaces.labels.read import Labels, read_labels
from spaces.metrics import Metric
from toys.finetune import PRETRAIN, SEEDS, SHORT, TRAIN, darts_labels, refused, train
from toys.labels import KEYS, SPACE, TEST, VAL, N, write_labels


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> str:
    return write_labels(tmp_path_factory.mktemp("labels") / "toy.csv")


def same(a: list[dict], b: list[dict]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in pairs)


def without_seconds(result: dict) -> dict:
    return {name: value for name, value in result.items() if name != "seconds"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """A pre-trained encoder of each kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("transformer", "gat"):
        pretrain.main(["--save", str(folder / name), "--base_model", name, *PRETRAIN])
    return {name: str(folder / name / "last.pt") for name in ("transformer", "gat")}


def encoder_of(checkpoint: str) -> dict:
    return torch.load(checkpoint, weights_only=True)["weights"]


def encoder_part(weights: dict) -> dict:
    return {name.removeprefix("encoder."): value
            for name, value in weights.items() if name.startswith("encoder.")}


# The result -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", RANKING_PROTOCOLS)
def test_the_result_says_what_was_done(tmp_path, labels, protocol, capsys):
    result, weights = train(tmp_path, labels, "--protocol", protocol)
    assert {"protocol", "space", "oracle", "n_train", "n_eval", "seeds", "tau", "tau_mean", "tau_std",
            "spearman_mean", "precision_at", "seconds", "members", "kernel_share"} <= result.keys()
    assert (result["protocol"], result["space"], result["seeds"]) == (protocol, "nasbench201", [0, 1])
    assert "toy.csv" in result["oracle"] and result["target"] == RANKING_PROTOCOLS[protocol].target
    assert result["n_train"] == TRAIN and result["n_train"] + result["n_eval"] == N
    assert len(result["tau"]) == len(weights) == 2
    assert result["tau_mean"] == pytest.approx(np.mean(result["tau"]))
    assert result["tau_std"] == pytest.approx(np.std(result["tau"], ddof=1))
    assert str(tmp_path / "result.json") in capsys.readouterr().out


def test_numbers_are_printed_whole_if_there_is_no_terminal(tmp_path, labels, capsys):
    result, _ = train(tmp_path, labels)
    printed = capsys.readouterr().out
    assert all(f"{result[name]:.4f}" in printed for name in ("tau_mean", "tau_std", "spearman_mean"))


def test_the_numbers_are_those_of_the_saved_predictor(tmp_path, labels):
    """tau and precision worked out again, from predictor.pt and the evaluation cells of each seed."""
    result, _ = train(tmp_path, labels)
    _, _, blend = load_predictor(str(tmp_path / "predictor.pt"), spaces.stored)
    scores = score_cells(blend, Batch.of(SPACE.encode_keys(KEYS)))  # [S, N]
    table = read_labels(labels, SPACE)
    tau, precision = [], []
    for s, row in zip(SEEDS, scores):
        cells = split(table, "nb201", TRAIN, s).evaluation
        a, b = row[cells], table.test[cells]
        order = np.sign(np.subtract.outer(a, a)) * np.sign(np.subtract.outer(b, b))
        untied = [(np.subtract.outer(x, x) != 0).sum() for x in (a, b)]
        tau.append(order.sum() / np.sqrt(untied[0] * untied[1]))
        precision.append(len(set(np.argsort(-a)[:10]) & set(np.argsort(-b)[:10])) / 10)
    assert result["tau"] == pytest.approx(tau, abs=1e-4)
    assert result["precision_at"]["10"] == pytest.approx(np.mean(precision))


def test_it_learns(tmp_path, labels):
    flags = "--epochs 20 --lr_encoder 0.01 --lr_predictor 0.01 --finetune_train_samples 80"
    result, _ = train(tmp_path, labels, *flags.split())
    assert min(result["tau"]) > 0.6


def test_other_spaces(tmp_path):
    """The protocol is the space's own if none is asked for."""
    labels = darts_labels(tmp_path / "l.csv", 40)
    result, _ = train(tmp_path, labels, "--space", "nasbench301", "--finetune_train_samples", "20")
    assert (result["protocol"], result["target"], result["n_eval"]) == ("nb301", "val", 20)


def test_an_ensemble_of_several_members(tmp_path, labels):
    result, weights = train(tmp_path, labels, "--members", "3")
    assert len(weights) == 6 and len(result["tau"]) == 2 and result["members"] == 3
    assert not any(same([a], [b]) for i, a in enumerate(weights) for b in weights[:i])


# What training reads ----------------------------------------------------------------------------------------

def shuffled(column: np.ndarray, rows) -> np.ndarray:
    """The column with other accuracies at the rows."""
    changed = column.copy()
    changed[rows] = 100 - column[rows]
    return changed


@pytest.mark.parametrize("protocol", RANKING_PROTOCOLS)
@pytest.mark.parametrize("fixed", [(), ("--finetune_fixed_encoder",)], ids=["end-to-end", "fixed"])
def test_labels_of_evaluation_cells_change_no_weight(tmp_path, labels, protocol, fixed):
    """Every accuracy that no seed trains on is another one: validation of the other cells, test of all."""
    table = read_labels(labels, SPACE)
    trained = np.concatenate([split(table, protocol, TRAIN, seed).train for seed in SEEDS])
    others = np.setdiff1d(np.arange(N), trained)
    changed = write_labels(tmp_path / "changed.csv", shuffled(VAL, others), shuffled(TEST, np.arange(N)))
    flags = ("--protocol", protocol, *fixed)
    before, weights = train(tmp_path / "a", labels, *flags)
    after, weights_after = train(tmp_path / "b", changed, *flags)
    assert same(weights, weights_after) and before["tau"] != after["tau"]


def test_labels_of_training_cells_do_change_the_weights(tmp_path, labels):
    row = split(read_labels(labels, SPACE), "nb201", TRAIN, 0).train[:1]
    other = write_labels(tmp_path / "other.csv", val=shuffled(VAL, row))
    assert not same(train(tmp_path / "a", labels)[1][:1], train(tmp_path / "b", other)[1][:1])


@pytest.mark.parametrize("protocol", ["tnasp", "nb201"])
def test_the_target_of_a_training_cell_counts_for_nothing(tmp_path, labels, protocol):
    cells = split(read_labels(labels, SPACE), protocol, TRAIN, 0).train
    other = write_labels(tmp_path / "other.csv", test=shuffled(TEST, cells))
    flags = ("--protocol", protocol, "--seeds", "0")
    before, after = (train(tmp_path / name, file, *flags)[0] for name, file in (("a", labels), ("b", other)))
    assert without_seconds(before) | {"oracle": ""} == without_seconds(after) | {"oracle": ""}


def test_the_same_seeds_give_the_same_result(tmp_path, labels):
    flags = ("--dropout", "0.3", "--predictor_dropout", "0.3", "--child_tuning_p", "0.7")
    (first, weights), (second, again) = (train(tmp_path / name, labels, *flags) for name in "ab")
    assert without_seconds(first) == without_seconds(second) and same(weights, again)


def test_other_seeds_give_another_result(tmp_path, labels):
    (first, weights), (second, others) = (train(tmp_path / seed, labels, "--seeds", seed) for seed in "34")
    assert first["tau"] != second["tau"] and not same(weights, others)


def test_every_seed_has_its_own_initial_weights(tmp_path, labels):
    """With no learning rate nothing moves."""
    _, (first, second) = train(tmp_path, labels, "--epochs", "1", "--lr_encoder", "0", "--lr_predictor", "0")
    assert not torch.equal(first["head.0.weight"], second["head.0.weight"])


# Modes and settings -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["transformer", "gat"])
def test_partial_fine_tuning_leaves_the_encoder_as_the_checkpoint_has_it(tmp_path, labels, checkpoints, name):
    flags = ("--model_state_dict", checkpoints[name], "--finetune_fixed_encoder", "--dropout", "0.3")
    result, weights = train(tmp_path, labels, *flags)
    assert same([encoder_part(w) for w in weights], [encoder_of(checkpoints[name])] * 2)
    assert result["base_model"] == name and result["pretrained"] == checkpoints[name]
    assert not torch.equal(weights[0]["head.0.weight"], weights[1]["head.0.weight"])


def test_partial_fine_tuning_trains_the_head(tmp_path, labels, checkpoints):
    flags = ("--model_state_dict", checkpoints["transformer"], "--finetune_fixed_encoder")
    short, longer = (train(tmp_path / epochs, labels, *flags, "--epochs", epochs)[1] for epochs in "12")
    assert all(not torch.equal(short[0][name], longer[0][name])
               for name in short[0] if name.startswith("head."))


@pytest.mark.parametrize("name", ["transformer", "gat"])
def test_end_to_end_fine_tuning_moves_the_encoder(tmp_path, labels, checkpoints, name):
    _, weights = train(tmp_path, labels, "--model_state_dict", checkpoints[name])
    start = encoder_of(checkpoints[name])
    assert all(not torch.equal(value, start[weight]) for weight, value in encoder_part(weights[0]).items())


def test_end_to_end_fine_tuning_starts_from_the_checkpoint(tmp_path, labels, checkpoints):
    """With no learning rate the encoder stays where it started."""
    checkpoint = checkpoints["transformer"]
    _, weights = train(tmp_path, labels, "--model_state_dict", checkpoint, "--lr_encoder", "0")
    assert same([encoder_part(w) for w in weights], [encoder_of(checkpoint)] * 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_runs(tmp_path, labels, loss):
    result, weights = train(tmp_path, labels, "--loss", loss)
    assert all(torch.isfinite(value).all() for w in weights for value in w.values())
    assert all(-1 <= tau <= 1 for tau in result["tau"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, labels, checkpoints):
    """The weights of a run with these flags (PRETRAINED stands for a checkpoint), each run once."""
    runs = {}

    def weights(flags: str) -> list[dict]:
        if flags not in runs:
            given = flags.replace("PRETRAINED", checkpoints["transformer"]).split()
            runs[flags] = train(tmp_path_factory.mktemp("run"), labels, *given)[1]
        return runs[flags]
    return weights


REACHES = {  # with these flags: settings that must matter then, at values which are no defaults
    "": ["lr_encoder 0.0037", "lr_predictor 0.0037", "weight_decay 0.37", "warmup 0.37", "epochs 6",
         "dropout 0.37", "finetune_batch_size 9", "predictor_dropout 0.37", "loss hinge",
         "child_tuning_p 0.5", "finetune_fixed_encoder", "model_state_dict PRETRAINED"],
    "--loss hinge": ["hinge_margin 0.037"],
    "--child_tuning_p 0.5": ["child_tuning_mode D", "child_tuning_p 0.8"],
    "--child_tuning_p 0.5 --child_tuning_mode D": ["child_tuning_p 0.3"],
    "--finetune_fixed_encoder": ["lr_predictor 0.0037", "predictor_dropout 0.37", "weight_decay 0.37",
                                 "model_state_dict PRETRAINED"],
}


@pytest.mark.parametrize("flags, setting", [
    (flags, setting) for flags, settings in REACHES.items() for setting in settings])
def test_a_setting_reaches_the_weights(trained, flags, setting):
    assert not same(trained(flags), trained(f"{flags} --{setting}"))


def test_a_params_file_reaches_the_weights_and_a_flag_beats_it(tmp_path, labels, trained):
    (tmp_path / "p.json").write_text('{"weight_decay": 0.37, "finetune_fixed_encoder": true}')
    file = ("--param", f"local:{tmp_path / 'p.json'}")
    _, frozen = train(tmp_path / "a", labels, *file)
    assert same(frozen, trained("--finetune_fixed_encoder --weight_decay 0.37"))
    _, moved = train(tmp_path / "b", labels, *file, "--no-finetune_fixed_encoder")
    assert same(moved, trained(" --weight_decay 0.37"))


# Errors -----------------------------------------------------------------------------------------------------

def test_checkpoints_that_do_not_fit(tmp_path, labels, checkpoints):
    train(tmp_path / "trained", labels)
    flags = ("--labels", labels, "--save", str(tmp_path / "run"), "--model_state_dict")
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(Path(checkpoints["gat"]).read_bytes()[:-400])
    assert str(tmp_path / "absent.pt") in refused(*flags, str(tmp_path / "absent.pt"))
    assert "damaged" in refused(*flags, str(truncated))
    predictor = str(tmp_path / "trained" / "predictor.pt")
    assert "predictor for nasbench201" in refused("--space", "darts", *flags, predictor)


def test_a_checkpoint_without_cell_marks_is_not_used_with_them(tmp_path):
    pretrain.main(["--space", "darts", "--no-cell_marks", "--save", str(tmp_path), *PRETRAIN])
    assert "cell_marks" in refused("--space", "darts", "--model_state_dict", str(tmp_path / "last.pt"))


@pytest.mark.parametrize("setting", [
    "seeds x", "seeds 5-3", "protocol best", "dataset mnist", "space nb", "loss mae", "device abacus",
    "heads 3", "heads 3 --base_model gat", "dropout 1.5", "epochs -1", "members 0", "child_tuning_p 0",
    "finetune_batch_size -4", "layers 0", "lr_encoder -1", "no-cell_marks"])
def test_settings_that_make_no_sense(tmp_path, labels, setting):
    """Width 16 does not divide among 3 heads; nasbench201 has no cells to mark."""
    name = setting.split()[0].removeprefix("no-")
    assert name in refused("--labels", labels, "--save", str(tmp_path), *f"--{setting}".split())


def test_training_that_diverges_has_no_tau(tmp_path, labels):
    assert "diverged" in refused("--labels", labels, "--save", str(tmp_path), "--lr_encoder", "1e30",
                                 "--epochs", "5")
    assert not (tmp_path / "result.json").exists()


def test_a_missing_label_file_and_a_missing_params_file(tmp_path):
    labels, params = str(tmp_path / "absent.csv"), str(tmp_path / "absent.json")
    assert labels in refused("--labels", labels, "--save", str(tmp_path))
    assert params in refused("--param", f"local:{params}")


def test_a_mistake_ends_with_code_2_and_one_line_on_stderr(tmp_path):
    command = [sys.executable, ROOT / "finetune.py", "--model_state_dict", "absent.pt"]
    end = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert end.returncode == 2 and end.stdout == ""
    assert re.fullmatch("error: .*absent.pt.*\n", end.stderr)


def test_a_run_does_not_wait_for_the_import_of_a_compiler(tmp_path, labels):
    """Of torch's; it takes seconds, more than fitting few labels."""
    flags = ["--labels", labels, "--save", str(tmp_path / "run"), *SHORT]
    code = f"import sys, finetune; finetune.main({flags}); sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_of_a_metric_to_minimise_the_lowest_scores_highest(monkeypatch):
    unknown = np.full(N, np.nan)
    table = Labels("toy", KEYS, np.arange(N) - 3.0, unknown, unknown, Metric("ms", lower_is_better=True))
    parts = [Split(np.array([0, 5]), np.array([2, 4]), "val")]
    assert finetune.examples_of(table, "nb201", parts, None, [0]).label.tolist() == [[3, -2]]
    monkeypatch.setattr(finetune, "score_cells", lambda predictor, graphs, rows: -table.val[rows][None])
    (score, truth), = finetune.rank(None, None, table, parts)
    assert truth.tolist() == [1, -1] and finetune.kendall_tau(score, truth) == 1
