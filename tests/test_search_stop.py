"""search.py --stop_at_best: where a search stops, what it writes for the queries that it saves, and its
curves."""
import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.errors import InputError
from strategies import problem, summary
from toys.search import lines, run

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
def everything(keys) -> list[str]:
    return ["--N", str(len(keys)), "--no-pictures"]


@pytest.mark.parametrize("algo", ["random", "ls", "ae"])
def test_it_stops_after_the_round_that_queries_the_best(tmp_path, labels, everything, algo):
    flags = [*everything, "--search_algo", algo, "--K", "4", "--seed", "1"]
    whole = run(tmp_path / "whole", labels, *flags)
    stopped = run(tmp_path / "stopped", labels, *flags, "--stop_at_best")
    made, rest = (len(lines(tmp_path / "stopped")), lines(tmp_path / "whole"))
    assert stopped["stopped"] == made < whole["N"] and whole["stopped"] is None
    assert made == max(i for i, line in enumerate(rest, 1)
                       if line["round"] == rest[whole["query"] - 1]["round"])
    assert rest[:made] == lines(tmp_path / "stopped")
    for name in ("key", "validation", "test", "query", "N", "optimum"):
        assert stopped[name] == whole[name]


def test_its_curve_stays_at_the_best_without_a_cost(tmp_path):
    stopped = run(tmp_path / "run", "", "--search_algo", "ls", "--N", "400", "--no-pictures",
                  "--stop_at_best", "--seed", "1")
    with open(tmp_path / "run" / "curve.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400 and stopped["stopped"] < 400
    assert all(row["cost"] for row in rows[:stopped["stopped"]])
    assert {(float(row["best_validation"]), row["cost"]) for row in rows[stopped["stopped"]:]} == {
        (stopped["optimum"]["validation"], "")}


def test_a_stopped_search_is_kept_and_goes_on_when_told(tmp_path, labels, everything, asked):
    flags = [*everything, "--search_algo", "ae", "--K", "4"]
    run(tmp_path / "whole", labels, *flags)
    first = run(tmp_path / "run", labels, *flags, "--stop_at_best")
    asked.clear()
    assert run(tmp_path / "run", labels, *flags, "--stop_at_best", "--resume") == first and not asked
    os.truncate(tmp_path / "run" / "history.jsonl", 1500)
    (tmp_path / "run" / "best.json").unlink()
    again = run(tmp_path / "run", labels, *flags, "--stop_at_best", "--resume")
    assert again | {"seconds": 0} == first | {"seconds": 0}
    assert run(tmp_path / "run", labels, *flags, "--resume")["stopped"] is None
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_the_best_of_a_surrogate_is_not_known(tmp_path, monkeypatch):
    oracle = SimpleNamespace(name="made up", covers=lambda key: True, query=None)
    monkeypatch.setattr(problem, "open_oracle", lambda *_, **__: oracle)
    with pytest.raises(InputError,
                       match="--stop_at_best: the best value that made up can give is not known"):
        run(tmp_path / "run", "a surrogate", "--search_space", "darts", "--stop_at_best")


def test_over_the_cost_a_stopped_run_stays_at_the_best():
    def made(costs, values, stopped):
        return summary.SearchRun({"stopped": stopped}, np.array(values), np.full(4, np.nan), np.array(costs))

    stopped = made([1, 2, np.nan, np.nan], [90, 95, 95, 95], 2)
    whole = made([1, 3, 5, 7], [90, 91, 92, 93], None)
    both = summary.cost_curve([stopped, whole], "validation")
    assert both.x[-1] == pytest.approx(7 / 86400) and both.mean[-1] == 94
    alone = summary.cost_curve([stopped], "validation")
    assert alone.x[-1] == pytest.approx(2 / 86400) and alone.mean[-1] == 95


def test_a_summary_says_how_many_stopped(tmp_path, labels, everything, capsys):
    result = run(tmp_path / "all", labels, *everything, "--search_algo", "random", "--seeds", "0,1",
                 "--stop_at_best")
    note = "2 of 2 searches stopped once they had queried the table's best (--stop_at_best)"
    assert result["notes"] == [note] and note in capsys.readouterr().out
    assert json.loads((tmp_path / "all" / "summary.json").read_text())["notes"] == [note]
