"""A user's command answers a search on a Ray cluster of two nodes on loopback, one of which is lost in the
middle of a training."""
import json
import os
import shlex
import sys
import threading
from pathlib import Path

import pytest

import search
from spaces.oracles import command
from toys.processes import none_left, wait_for

PROGRAM = """
import json, os, sys, time
folder = sys.argv[2]
with open(folder + "/starts", "a") as file:
    file.write(os.environ.get("DOOMED", "") + "x\\n")
if "DOOMED" in os.environ:
    open(os.path.join(folder, "..", "..", "hangs"), "w").close()
    time.sleep(600)
print(json.dumps({"accuracy": 50 + sys.argv[1].count("3x3")}))
"""


def run_program_until_lost(task) -> dict:
    """The real task. On the doomed node its program hangs; elsewhere it starts when that has happened."""
    import ray

    root, node = Path(task.folder).parents[1], ray.get_runtime_context().get_node_id()
    if node == (root / "doomed").read_text():
        os.environ["DOOMED"] = node
    else:
        wait_for(root / "hangs")
    return run_for_real(task)


run_for_real = command.run_task


@pytest.mark.slow
def test_a_search_by_command_loses_a_node_and_counts_every_training_once(cluster, tmp_path, monkeypatch):
    out = tmp_path / "s"
    out.mkdir()
    (out / "doomed").write_text(cluster.lost.node_id)
    (tmp_path / "program.py").write_text(PROGRAM)

    def lose() -> None:
        wait_for(out / "hangs")
        cluster.remove(cluster.lost, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    monkeypatch.setattr(command, "run_task", run_program_until_lost)
    oracle = shlex.join(["command:", sys.executable, str(tmp_path / "program.py"), "{key}", "{outdir}"])
    best = search.main([
        "--search_algo", "ae", "--oracle", oracle, "--outdir", str(out), "--executor", "ray", "--address",
        cluster.address, "--N", "8", "--N0", "5", "--K", "3", "--population", "5", "--tournament", "2",
        "--no-pictures", "--device", "cpu", "--threads", "1"])
    history, trainings = ([json.loads(line) for line in (out / name).read_text().splitlines()]
                          for name in ("history.jsonl", "trainings.jsonl"))
    labels = {training["key"]: training["validation"] for training in trainings}
    assert len(history) == len(trainings) == len(labels) == 8 and best["failed"] == 0
    assert {query["key"]: query["validation"] for query in history} == labels
    starts = [path.read_text().split() for path in out.glob("trainings/*/starts")]
    assert sorted(map(len, starts)) == [1] * 7 + [2]  # the lost one began again elsewhere
    none_left(tmp_path, seconds=20)  # nor does its program go on sleeping
