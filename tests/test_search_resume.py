"""search.py, interrupted at any moment and resumed: the same bytes, no query twice."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import search
from runtime.errors import InputError
from runtime.files import whole_lines
from runtime.locks import exclusive
from runtime.log import Log
from spaces.oracles.table import TableOracle
from strategies import STRATEGIES, posterior
from strategies.base import Strategy
from strategies.history import History
from strategies.rounds import Chooser
from toys.search import SMALL, N, lines, run, save_encoder

pytestmark = pytest.mark.usefixtures("hasty")

# Interrupted and resumed ------------------------------------------------------------------------------------

class Mutants(Strategy):
    """A strategy with a state: mutates the best it was told of; proposes repeats, and fewer than a round
    queries."""

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.told = []

    def propose(self, n, rng):
        best = max(self.told, key=lambda query: query.validation).arch
        return [self.pool.space.mutate(best, rng)] * 3 + [best]

    def rank(self, posterior, rng):
        return posterior.mean + rng.normal(size=len(posterior.mean))

    def observe(self, queries):
        self.told.extend(queries)


@pytest.mark.parametrize("algo", [*STRATEGIES, "mutants"])
def test_cut_at_any_byte_it_is_resumed_to_the_same_bytes(tmp_path, labels, asked, no_report, monkeypatch,
                                                         algo):
    monkeypatch.setitem(STRATEGIES, "mutants", Mutants)
    run(tmp_path / "run", labels, "--search_algo", algo)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_bytes()
    rng = np.random.default_rng(4)
    for cut in [0, 1, len(whole) - 1, *rng.integers(len(whole), size=4)]:
        path.write_bytes(whole[:cut])
        asked.clear()
        run(tmp_path / "run", labels, "--search_algo", algo, "--resume")
        assert path.read_bytes() == whole
        assert len(asked) == N - whole[:cut].count(b"\n")


@pytest.mark.parametrize("listed", [60, 0])
def test_a_search_of_the_surface_is_resumed_to_the_same_bytes(tmp_path, labels, no_report, monkeypatch,
                                                              listed):
    """One that looks at the whole pool each round, and one that climbs, both with an encoder."""
    monkeypatch.setattr("strategies.rounds.LISTED", listed)
    save_encoder(tmp_path / "last.pt", 3)
    flags = ["--search_algo", "bo", "--kernel_share", "1", "--encoder_model_state_dict",
             str(tmp_path / "last.pt")]
    run(tmp_path / "run", labels, *flags)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_bytes()
    for cut in np.random.default_rng(4).integers(len(whole), size=3):
        path.write_bytes(whole[:cut])
        run(tmp_path / "run", labels, *flags, "--resume")
        assert path.read_bytes() == whole


@pytest.mark.parametrize("algo", STRATEGIES)
def test_killed_within_the_oracle_it_is_resumed_to_the_same_bytes(tmp_path, labels, asked, no_report,
                                                                  monkeypatch, algo):
    run(tmp_path / "whole", labels, "--search_algo", algo)
    expected = (tmp_path / "whole" / "history.jsonl").read_bytes()
    counted, rng = TableOracle.query, np.random.default_rng(5)

    def failing(self, arch):
        if rng.random() < 0.25:
            raise KeyboardInterrupt
        return counted(self, arch)

    monkeypatch.setattr(TableOracle, "query", failing)
    asked.clear()
    kills = 0
    while not (tmp_path / "run" / "history.jsonl").exists() or len(lines(tmp_path / "run")) < N:
        try:
            run(tmp_path / "run", labels, "--search_algo", algo, "--resume")
        except KeyboardInterrupt:
            kills += 1
    assert kills > 1 and len(asked) == N
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == expected


@pytest.mark.parametrize("algo", ["ae", "ls", "policy"])
def test_ten_kills_anywhere_and_torn_files_leave_the_same_bytes(tmp_path, labels, monkeypatch, algo):
    run(tmp_path / "whole", labels, "--search_algo", algo, "--no-pictures")
    rng, kills, folder = np.random.default_rng(6), [0], tmp_path / "run"
    places = [(TableOracle, "query"), (History, "append"), (Chooser, "choose"), (Chooser, "observe"),
              (Log, "write"), (posterior, "fit_ensemble"), (search, "write_curve"), (search, "write_json")]

    def fragile(function):
        def call(*args, **kwargs):
            before, after = rng.random(2) < (0.08 if kills[0] < 10 else 0)
            if before:
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if after:
                raise KeyboardInterrupt
            return result
        return call

    for owner, name in places:
        monkeypatch.setattr(owner, name, fragile(getattr(owner, name)))
    while kills[0] < 10:
        try:
            run(folder, labels, "--search_algo", algo, "--no-pictures", "--resume")
            (folder / "best.json").unlink()  # done before the tenth kill: lose half of it
            os.truncate(folder / "history.jsonl", (folder / "history.jsonl").stat().st_size // 2)
        except KeyboardInterrupt:
            kills[0] += 1
            for path in folder.glob("*.jsonl"):
                os.truncate(path, max(0, path.stat().st_size - int(rng.integers(90))))
    run(folder, labels, "--search_algo", algo, "--no-pictures", "--resume")
    for name in ("history.jsonl", "curve.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_search_killed_by_the_system_is_resumed_to_the_same_bytes(tmp_path, labels):
    folder = tmp_path / "run"
    command = [sys.executable, ROOT / "search.py", *SMALL, "--outdir", folder, "--labels", labels,
               "--threads", "1", "--epochs", "60", "--no-pictures"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (folder / "history.jsonl").exists() or len(whole_lines(folder / "history.jsonl")) < 10:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "best.json").exists()
    run(folder, labels, "--epochs", "60", "--no-pictures", "--resume")
    run(tmp_path / "whole", labels, "--epochs", "60", "--no-pictures")
    assert (folder / "history.jsonl").read_bytes() == (tmp_path / "whole" / "history.jsonl").read_bytes()


def test_a_finished_search_reports_again_without_a_query(tmp_path, labels, asked):
    first = run(tmp_path / "run", labels)
    asked.clear()
    assert run(tmp_path / "run", labels, "--resume") == first and not asked


def test_a_folder_with_a_search_is_not_overwritten(tmp_path, labels, no_report):
    run(tmp_path / "run", labels)
    with pytest.raises(InputError, match="run holds a search already: go on with --resume"):
        run(tmp_path / "run", labels)


def test_two_processes_do_not_search_in_one_folder(tmp_path, labels, asked, no_report, monkeypatch):
    """Each would append to the history of the other; the folder is free again once the first has ended, or
    was killed."""
    monkeypatch.setattr(search, "exclusive", lambda folder, flag, patience: exclusive(folder, flag, .2))
    hold = ("import sys; from pathlib import Path; from runtime.locks import exclusive\n"
            "with exclusive(Path(sys.argv[1]), '--outdir'): print('held', flush=True); sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "run")], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"run: held by process {process.pid} on .* another --outdir"):
        run(tmp_path / "run", labels)
    assert not asked and not (tmp_path / "run" / "config.json").exists()
    process.kill()
    run(tmp_path / "run", labels)
    process.communicate()
    assert len(asked) == N


@pytest.mark.parametrize("algo", ["r", "bo", "re", "rl"])
def test_a_finished_search_goes_on_to_more_queries_as_if_it_had_them_from_the_beginning(
        tmp_path, labels, asked, algo):
    """14 queries end in the middle of a round of 4."""
    whole = run(tmp_path / "whole", labels, "--search_algo", algo)
    run(tmp_path / "run", labels, "--search_algo", algo, "--N", "14")
    asked.clear()
    longer = run(tmp_path / "run", labels, "--search_algo", algo, "--resume")
    assert len(asked) == 6 and longer | {"seconds": 0} == whole | {"seconds": 0}
    for name in ("history.jsonl", "curve.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InputError, match="was made with N = 20, not 14"):
        run(tmp_path / "run", labels, "--search_algo", algo, "--resume", "--N", "14")


def test_the_content_of_labels_decides_and_not_their_name(tmp_path, labels, no_report):
    run(tmp_path / "run", labels)
    os.truncate(tmp_path / "run" / "history.jsonl", 2000)
    copy, text = tmp_path / "copy.csv", Path(labels).read_text()
    copy.write_text(text)
    run(tmp_path / "run", str(copy), "--resume")
    Path(labels).write_text(text.replace(",50", ",51", 1))
    with pytest.raises(InputError, match="config.json was made with another content of labels"):
        run(tmp_path / "run", labels, "--resume")


def test_resuming_with_another_setting_names_it(tmp_path, labels, no_report):
    save_encoder(tmp_path / "one.pt", 1)
    encoder = "--encoder_model_state_dict", str(tmp_path / "one.pt")
    run(tmp_path / "run", labels, *encoder)
    with pytest.raises(InputError,
                       match="run/config.json was made with K = 4, not 5: give the same to go on"):
        run(tmp_path / "run", labels, *encoder, "--resume", "--K", "5")
    with pytest.raises(InputError, match="was made with lr_encoder = 0.002, not 0.1"):
        run(tmp_path / "run", labels, *encoder, "--resume", "--lr_encoder", "0.1")
    save_encoder(tmp_path / "one.pt", 2)
    with pytest.raises(InputError, match="was made with another content of encoder_model_state_dict"):
        run(tmp_path / "run", labels, *encoder, "--resume")


# What config.json of the search `run` held before settings had roles, as it was written then.
OF_BEFORE = {
    "oracle": "labels.csv (cifar10)", "data": "~/datasets", "budget": "", "M": 10, "edits": 6,
    "population": 6, "tournament": 5, "acquisition": "ucb", "random_share": 0.5, "policy_lr": 0.3,
    "baseline_decay": 0.8, "base_model": "", "width": 8, "layers": 1, "heads": 2, "direction": True,
    "dropout": 0.2, "predictor_dropout": 0.0, "finetune_fixed_encoder": False, "finetune_batch_size": 0,
    "epochs": 2, "lr_encoder": 0.002, "gentle_below": 200, "lr_predictor": 0.002, "weight_decay": 0.01,
    "warmup": 0.1, "loss": "soft_bce", "hinge_margin": 0.1, "child_tuning_mode": "F", "child_tuning_p": 1.0,
    "members": 1, "search_space": "nasbench201", "search_algo": "r", "kernel_share": 0.5,
    "protocol": "val-test", "dataset": "cifar10", "encoder_model_state_dict": "", "run": 0, "N": N, "N0": 6,
    "K": 4, "C": 12, "seed": 0, "seeds": "", "cell_marks": True, "encoder_sha256": None}


def test_a_search_of_before_goes_on(tmp_path, labels, asked, no_report):
    """Without the prior, the climb and the restarts, which it did not have."""
    before = "--prior", "", "--no-prior_start", "--climbs", "0", "--policy_patience", "0"
    run(tmp_path / "run", labels, *before)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    (tmp_path / "run" / "config.json").write_text(json.dumps(OF_BEFORE | {"labels": labels}))
    asked.clear()
    with pytest.raises(InputError, match="was made with policy_patience = None"):
        run(tmp_path / "run", labels, "--resume")
    run(tmp_path / "run", labels, *before, "--resume")
    assert path.read_bytes() == whole and 0 < len(asked) < N


def test_a_history_of_another_search_is_refused(tmp_path, labels, keys, no_report):
    run(tmp_path / "run", labels)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:8]) + whole[3])
    with pytest.raises(InputError,
                       match="history.jsonl:9: this is not query 9 of 20 of a search on nasbench201"):
        run(tmp_path / "run", labels, "--resume")
    used = {json.loads(line)["key"] for line in whole}
    other = next(key for key in keys if key not in used)
    swapped = {**json.loads(whole[8]), "key": other, "architecture": other}
    path.write_text("".join(whole[:8]) + json.dumps(swapped) + "\n")
    with pytest.raises(InputError, match="history.jsonl:9: this search chooses another architecture here"):
        run(tmp_path / "run", labels, "--resume")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json: .* the search cannot be resumed: give another"):
        run(tmp_path / "run", labels, "--resume")
