"""Limits: what breaks one is never queried, whatever the strategy; costs are exact; names are found."""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import search
import spaces
from cifar.costs import DartsCosts
from cifar.network import cost
from runtime.errors import InputError
from spaces import darts
from strategies import STRATEGIES
from strategies.asking import Search
from strategies.base import CandidatePool
from strategies.limits import Facts, Limits, Sources, parse_limits

FULL = os.environ.get("FULL") == "1"
DARTS, MACRO = spaces.get("darts"), spaces.get("nasbench_macro")


def test_texts():
    limits = parse_limits("params<=4e6, Macs < 600.5,x>=-1,a.b-c>2")
    assert [str(limit) for limit in limits] == ["params<=4000000", "macs<600.5", "x>=-1", "a.b-c>2"]
    for text in ("params", "params=4", "params<=", "<=4", "params<=4M", "params<=1e", "a b<3"):
        with pytest.raises(InputError, match="write NAME<=NUMBER"):
            parse_limits(text)
    assert parse_limits("") == []


@pytest.mark.parametrize(("channels", "cells"), [(8, 5), *FULL * [(16, 8)]])
def test_costs_of_darts_networks_are_those_of_the_networks(channels, cells):
    archs = [*DARTS.sample(12, np.random.default_rng(channels)), *darts.NAMED.values()]
    costs = DartsCosts(channels, cells)(archs)
    expected = [cost(arch, channels, cells) for arch in archs]
    np.testing.assert_array_equal(costs["params"], [each.parameters for each in expected])
    np.testing.assert_array_equal(costs["macs"], [each.macs for each in expected])


# In searches ------------------------------------------------------------------------------------------------

@pytest.fixture
def tables(tmp_path, keys) -> tuple[str, str, dict[str, float]]:
    """Accuracies, and latencies in another file, of which one cell lacks its own."""
    rng = np.random.default_rng(3)
    accuracy, latency = rng.uniform(50, 90, len(keys)), dict(zip(keys, rng.uniform(1, 9, len(keys)).tolist()))
    (tmp_path / "a.jsonl").write_text("".join(
        json.dumps({"arch": key, "val_accuracy": value}) + "\n" for key, value in zip(keys, accuracy)))
    (tmp_path / "l.csv").write_text("arch,energy,gpu_latency\n" + "".join(
        f"{key},1,{value}\n" for key, value in list(latency.items())[1:]))
    latency[keys[0]] = np.nan
    return str(tmp_path / "a.jsonl"), str(tmp_path / "l.csv"), latency


@pytest.mark.parametrize("algo", [name for name in STRATEGIES if name not in ("bananas", "xgb")])
def test_no_strategy_queries_beyond_a_limit(tmp_path, tables, algo):
    labels, more, latency = tables
    flags = ["--search_algo", algo, "--labels", labels, "--more_labels", more, "--limit", "gpu_latency<5",
             "--limit", "energy<=1", "--N", "20", "--N0", "5", "--K", "4", "--population", "6", "--outdir",
             str(tmp_path / "s"), "--threads", "1", "--no-pictures"]
    best = search.main(flags)
    history = (tmp_path / "s" / "history.jsonl").read_bytes()
    queried = [json.loads(line)["key"] for line in history.splitlines()]
    assert len(queried) == 20 and all(latency[key] < 5 for key in queried)
    within = [key for key, value in latency.items() if value < 5]
    assert best["limit"] == "gpu_latency<5,energy<=1" and best["optimum"]["cells"] == len(within)
    rows = map(json.loads, Path(labels).read_text().splitlines())
    values = {row["arch"]: row["val_accuracy"] for row in rows}
    assert best["optimum"]["validation"] == max(values[key] for key in within)
    (tmp_path / "s" / "best.json").unlink()
    (tmp_path / "s" / "history.jsonl").write_bytes(history[:len(history) // 2])
    search.main([*flags, "--resume"])
    assert (tmp_path / "s" / "history.jsonl").read_bytes() == history
    (tmp_path / "other.csv").write_text(Path(more).read_text().replace(",1,", ",0.5,"))
    with pytest.raises(InputError, match="another content of more_labels"):
        search.main([word if word != more else str(tmp_path / "other.csv") for word in flags] + ["--resume"])


def test_names_that_nothing_has(tmp_path, tables):
    labels, more, _ = tables
    flags = ["--labels", labels, "--outdir", str(tmp_path / "s"), "--N", "20", "--threads", "1"]
    for limit, said in (("params<=1", "params is neither a column of a table nor computed for nasbench201"),
                        ("gpu_latency<0", "none of the 60 architectures"), ("gpu_latency<2", "--N 20"),
                        ("latency", "write NAME<=NUMBER")):
        with pytest.raises(InputError, match=said):
            search.main([*flags, "--more_labels", more, "--limit", limit])
    with pytest.raises(InputError, match="no such file"):
        search.main([*flags, "--more_labels", str(tmp_path / "none.csv"), "--limit", "x<1"])


@pytest.mark.parametrize("algo", ["ls", "ae", "rl", "random"])
def test_computed_limits_of_a_space_that_cannot_be_listed(algo):
    """Costs of DARTS networks, of which a tenth keeps the limit."""
    costs = DartsCosts(8, 5)
    some = costs(DARTS.sample(500, np.random.default_rng(1)))["params"]
    bound = float(np.quantile(some, 0.1))
    limits = Limits(f"params<={bound}", Facts(DARTS, costs=costs))
    pool = CandidatePool(DARTS, limits.keeps, None, str(limits))
    settings = search.Config(population=5, tournament=2)
    strategy, rng = STRATEGIES[algo](pool, settings), np.random.default_rng(2)
    archs = pool.draw(8, rng)
    assert pool.left == float("inf") and len({DARTS.key(arch) for arch in archs}) == 8
    archs += pool.neighbourhood(archs[0], 3, rng) + pool.mutants(archs[:2], 10, 3, rng)
    if algo in ("random", "rl"):
        archs += pool.fresh(strategy.propose(20, rng))
    assert len(archs) > 20 and (costs(archs)["params"] <= bound).all()


def test_a_limit_that_hardly_anything_keeps_ends_the_draw():
    limits = Limits("params<1", Facts(MACRO))
    pool = CandidatePool(MACRO, limits.keeps, None, str(limits))
    with pytest.raises(InputError, match="loosen the limits"):
        pool.draw(2, np.random.default_rng(0))
    assert limits.listed(MACRO) == [] and limits.listed(DARTS) is None


def test_the_last_of_a_space_is_found_without_limits():
    pool, rng = CandidatePool(MACRO, lambda key: True, None), np.random.default_rng(0)
    rows = np.stack(np.unravel_index(np.arange(6561), MACRO.choices), 1)
    keys = list(map(MACRO.key, MACRO.decode(rows)))
    for key in keys[:-2]:
        pool.take(key)
    assert {MACRO.key(arch) for arch in pool.draw(9, rng)} == set(keys[-2:])


def test_all_that_keep_narrow_limits_are_queried(tmp_path):
    """A space that can be listed is, so that none of them is missed."""
    limits = Limits("params<=5e5", Facts(MACRO))
    within = limits.listed(MACRO)
    assert 20 < len(within) < 100 and limits.keep(within).all()
    for algo in ("r", "bo", "ls", "rl"):
        asked = Search(MACRO, search_algo=algo, N=len(within), N0=5, limit="params<=5e5")
        while len(asked.history) < len(within):
            for arch in asked.ask(9):
                asked.tell(arch, 50 + sum(arch))
        assert {query.key for query in asked.history[:]} == set(within)
    some = MACRO.sample(50, np.random.default_rng(0))
    outside = next(arch for arch in some if not limits.keeps(MACRO.key(arch)))
    with pytest.raises(InputError, match="breaks params<=500000"):
        Search(MACRO, search_algo="random", N=9, N0=2, limit="params<=5e5").tell(outside, 50)


def test_a_declared_space_is_limited_in_ask_and_tell(tmp_path):
    asked = Search(MACRO, tmp_path / "s", search_algo="ae", N=40, N0=10, limit="params<=9e5,macs<=3e7")
    for _ in range(8):
        for arch in asked.ask(5):
            asked.tell(arch, 90 - sum(arch))
    costs = MACRO.costs([query.arch for query in asked.history[:]])
    assert len(asked.history) == 40 and costs["params"].max() <= 9e5 and costs["macs"].max() <= 3e7
    with pytest.raises(InputError, match="limit"):
        Search(MACRO, tmp_path / "s", search_algo="ae", N=40, N0=10)


def test_a_column_of_a_table_goes_before_what_is_computed(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("arch,params,total_macs\n00000000,1,5\n00000001,3,5\n")
    facts = Facts(MACRO, Sources([str(path)]))
    keys = [MACRO.key(MACRO.parse(f"0000000{i}")) for i in range(3)]
    np.testing.assert_array_equal(facts.of("params", keys), [1, 3, np.nan])
    assert facts.of("macs", keys)[0] == 7713280 and facts.digest(["macs"]) is None
    assert facts.digest(["params"]) == Facts(MACRO, Sources([str(path)])).digest(["macs", "params"])
    assert Limits("params>=2", facts).keep(keys).tolist() == [False, True, False]
