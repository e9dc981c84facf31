"""search.py --oracle train on a Ray cluster of two nodes on loopback, one of which is lost in the middle of a
training."""
import json
import threading
import time
from pathlib import Path

import pytest

import search
from cifar import oracle
from cifar.oracle import TrainingTask
from cifar.training import Training
from toys.cifar import pictures, write
from toys.processes import wait_for

# 5 steps for 40 images
BUDGET = "layers=3,init_channels=4,epochs=1,batch_size=8,auxiliary=false,checkpoint_minutes=0"


def run_until_lost(task: TrainingTask) -> dict:
    """The real training. It leaves one line per step; on the doomed node it hangs in the third, elsewhere it
    starts when that has happened."""
    import ray

    folder, node = Path(task.folder), ray.get_runtime_context().get_node_id()
    root = folder.parents[1]
    doomed, hangs = (root / "doomed").read_text(), root / "hangs"
    if node != doomed:
        wait_for(hangs)
    update = Training.update

    def watched(self, progress):
        if node == doomed and self.step == 2:
            hangs.touch()
            time.sleep(600)
        with open(folder / "steps", "a") as file:
            print(self.step, node, file=file)
        update(self, progress)

    Training.update = watched
    try:
        return train_for_real(task)
    finally:
        Training.update = update


train_for_real = oracle.run_task


@pytest.mark.slow
def test_a_search_by_training_loses_a_node_and_counts_every_training_once(cluster, tmp_path, monkeypatch):
    data, out = write(tmp_path / "tiny.npz", pictures(80, 0), pictures(20, 1)), tmp_path / "s"
    out.mkdir()
    (out / "doomed").write_text(cluster.lost.node_id)

    def lose() -> None:
        wait_for(out / "hangs")
        cluster.remove(cluster.lost, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    monkeypatch.setattr(oracle, "run_task", run_until_lost)
    search.main(["--search_space", "darts", "--search_algo", "ae", "--oracle", "train", "--data", str(data),
                 "--budget", BUDGET, "--outdir", str(out), "--executor", "ray", "--address", cluster.address,
                 "--N", "5", "--N0", "3", "--K", "2", "--population", "3", "--tournament", "2",
                 "--members", "1", "--epochs", "1", "--no-pictures", "--device", "cpu", "--threads", "1"])

    history, trainings = ([json.loads(line) for line in (out / name).read_text().splitlines()]
                          for name in ("history.jsonl", "trainings.jsonl"))
    labels = {training["key"]: training["validation"] for training in trainings}
    assert len(history) == len(trainings) == len(labels) == 5
    assert {query["key"]: query["validation"] for query in history} == labels
    steps = [[line.split() for line in path.read_text().splitlines()]
             for path in out.glob("trainings/*/steps")]
    # none of them twice
    assert [[int(step) for step, _ in training] for training in steps] == [[0, 1, 2, 3, 4]] * 5
    assert sorted(len({node for _, node in training}) for training in steps) == [1, 1, 1, 1, 2]
