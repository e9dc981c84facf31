"""benchmarks/search_worth.py: what a difference of two searches is worth, in pairs over the seeds."""
import json

import numpy as np
import pytest

from benchmarks import search_worth
from runtime.errors import InputError
from toys import search as toys
from toys.search import N, lines


def run(folder, labels, *flags):
    toys.run(folder, labels, "--no-pictures", *flags)


@pytest.fixture
def folders(tmp_path, labels) -> tuple[str, str]:
    """Local search and random search with the seeds 0 and 1, and again, the latter with 1 and 2."""
    run(tmp_path / "with", labels, "--search_algo", "ls,random", "--seeds", "0,1")
    run(tmp_path / "without", labels, "--search_algo", "random", "--seeds", "1,2")
    return str(tmp_path / "with"), str(tmp_path / "without")


def measured(tmp_path, runs, against, *flags) -> dict:
    return search_worth.main(["--runs", runs, "--against", against, "--queries", f"5,{N}", "--out",
                              str(tmp_path / "worth.json"), *flags])


def test_the_gain_is_that_of_the_seeds_that_both_have(tmp_path, folders):
    """Of random search the seed 1, which found the same; nothing else is in both."""
    report = measured(tmp_path, *folders)
    assert list(report["algos"]) == ["random"]
    row = report["algos"]["random"]
    assert row["n"] == 1 and row["gain"][5]["mean"] == row["gain"][N]["mean"] == 0
    assert row["queries_saved"]["mean"] == 0
    stored = json.loads((tmp_path / "worth.json").read_text())
    assert stored["algos"]["random"]["gain"][str(N)]["verdict"] is None and (tmp_path / "worth.png").exists()


def test_the_gain_is_in_the_best_so_far(tmp_path, labels):
    run(tmp_path / "with", labels, "--search_algo", "random", "--seeds", "0,1")
    run(tmp_path / "without", labels, "--search_algo", "random", "--seeds", "0,1", "--N0", "7", "--K", "3")
    folders = [str(tmp_path / name) for name in ("with", "without")]
    report = measured(tmp_path, *folders)
    best = [[max(line["validation"] for line in lines(tmp_path / name / "random" / str(seed))[:5])
             for seed in range(2)] for name in ("with", "without")]
    assert report["algos"]["random"]["gain"][5]["mean"] == pytest.approx(np.mean(np.subtract(*best)))


def test_what_cannot_be_compared_is_refused(tmp_path, folders):
    for flags, word in ((["--queries", "5,x"], "--queries"), (["--queries", "500"], "500"),
                        (["--out", "worth.csv"], ".json")):
        with pytest.raises(InputError, match=word):
            measured(tmp_path, *folders, *flags)


def test_nothing_in_common(tmp_path, labels):
    for name, algo in (("with", "random"), ("without", "re")):
        run(tmp_path / name, labels, "--search_algo", algo, "--seeds", "0,1")
    with pytest.raises(InputError, match="in common"):
        measured(tmp_path, str(tmp_path / "with"), str(tmp_path / "without"))
