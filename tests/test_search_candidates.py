"""benchmarks.search_candidates: it watches a search and does not change it."""
from __future__ import annotations

import json

import pytest

import search
from benchmarks import search_candidates
from runtime.errors import InputError
from strategies import rounds

SMALL = ["--N", "30", "--threads", "1", "--device", "cpu"]


def test_a_watched_search_is_the_same_search(tmp_path, monkeypatch):
    watched, whole = [], rounds.History.append

    def append(history, t, arch, record, score):
        watched.append((t, history.space.key(arch)))
        return whole(history, t, arch, record, score)

    monkeypatch.setattr(rounds.History, "append", append)
    out = tmp_path / "candidates.json"
    few = ["--sample", "40", "--top", "10"]
    report = search_candidates.main([*SMALL, *few, "--seeds", "3", "--out", str(out)])
    seen, watched[:] = list(watched), []
    search.run(search.Config(search_algo="bo", N=30, seed=3, threads=1, device="cpu", pictures=False,
                             outdir=str(tmp_path / "search")))
    assert seen == watched
    tau, _ = report["bo"]["tau"]
    assert 0.2 < tau < 0.9 and report["bo"]["looked_at"][0] > 15_000
    assert json.loads(out.read_text())["algos"]["bo"]["seeds"] == [3]


def test_a_strategy_without_a_predictor_is_refused(tmp_path):
    with pytest.raises(InputError, match="--search_algo random,bo: random fits no predictor"):
        search_candidates.main([*SMALL, "--search_algo", "random,bo", "--out", str(tmp_path / "c.json")])
