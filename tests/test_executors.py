"""runtime/executors.py: where runs are computed; a Ray cluster of two nodes on loopback, one of which is
lost."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from runtime.errors import InputError
from runtime.executors import ExecutorSettings, compute_all, open_executor


def square(x):
    return x * x


def refuse(x):
    raise InputError(f"not {x}")


def die(x):
    os._exit(1)


def mapped(function, tasks, **settings):
    with open_executor(ExecutorSettings(**settings)) as executor:
        return sorted(executor.map(function, tasks))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_comes_back_with_its_result(jobs):
    assert mapped(square, [1, 2, 3], jobs=jobs) == [(1, 1), (2, 4), (3, 9)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_task_raises_is_raised_here(jobs):
    with pytest.raises(InputError, match="^not 5$"):
        mapped(refuse, [5], jobs=jobs)


def test_without_a_terminal_a_line_a_task_says_how_long_the_rest_takes(capsys):
    compute_all(ExecutorSettings(), square, [1, 2], "task {}".format)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("task 1: done; 1 of 2 in ") and lines[1].startswith("task 2: done; 2 of 2 in ")
    assert lines[1].endswith("about 0 s left")


def test_a_process_that_dies_is_named():
    with pytest.raises(InputError, match="--jobs 2: a process was killed, .* --resume go on"):
        mapped(die, [1], jobs=2)


PARENT = """
import os, sys, time
from pathlib import Path
from runtime.executors import ExecutorSettings, open_executor

def work(folder):
    Path(folder, str(os.getpid())).touch()
    while True:  # a busy worker, which holds the interpreter most of the time
        sum(range(10**5))

if __name__ == "__main__":
    with open_executor(ExecutorSettings(jobs=2)) as executor:
        list(executor.map(work, [sys.argv[1]] * 3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_workers_end_with_their_parent(tmp_path, kind):
    (tmp_path / "script.py").write_text(PARENT)
    (tmp_path / "out").mkdir()
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path / "out")],
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    while len(workers := list((tmp_path / "out").iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(kind)
    parent.wait()
    until = time.monotonic() + 20
    while any(Path("/proc", worker.name).exists() for worker in workers):
        assert time.monotonic() < until, "a worker outlived its parent"
        time.sleep(0.05)


# Ray --------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from functools import lru_cache
from runtime.executors import ExecutorSettings, open_executor

@lru_cache  # which can be pickled by its name only
def twice(x):
    return 2 * x

def run(x):
    return twice(x)

if __name__ == "__main__":
    with open_executor(ExecutorSettings(executor="ray", address=sys.argv[1])) as executor:
        print(list(executor.map(run, [3])))
"""


@pytest.mark.slow
def test_a_function_of_the_script_itself(cluster, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    end = subprocess.run([sys.executable, str(tmp_path / "script.py"), cluster.address], capture_output=True,
                         text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert end.stdout == "[(3, 6)]\n", end.stderr


def patient(task):
    """Leaves a mark of its node. Waits for ever on the doomed node; elsewhere until there is a task on that
    one."""
    import ray

    folder, number, doomed = task
    node = ray.get_runtime_context().get_node_id()
    Path(folder, f"{number}-{node}").touch()
    while node == doomed or not list(Path(folder).glob(f"*-{doomed}")):
        time.sleep(0.05)
    return number


@pytest.mark.slow
def test_a_cluster_computes_and_a_lost_node_costs_nothing_but_a_retry(cluster, tmp_path):
    tasks, done = [(str(tmp_path), number, cluster.lost.node_id) for number in range(3)], {}
    with open_executor(ExecutorSettings(executor="ray", address=cluster.address)) as executor:
        for task, result in executor.map(patient, tasks):
            done[task] = result
            if len(done) == 2:  # the third hangs
                cluster.remove(cluster.lost, allow_graceful=False)
        with pytest.raises(InputError, match="^not 5$"):
            list(executor.map(refuse, [5]))
    assert done == {task: task[1] for task in tasks}
    tried = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    assert len(tried) == 4 and len(set(tried)) == 3  # one of them twice


def test_no_cluster_is_said_at_once():
    pytest.importorskip("ray", reason="needs ray: pip install -r requirements-scale.txt")
    with pytest.raises(InputError,
                       match="--address 127.0.0.1:9: no Ray cluster answers .*ConnectionRefusedError"):
        mapped(square, [1], executor="ray", address="127.0.0.1:9")
    with pytest.raises(InputError, match="--address nonsense: no Ray cluster answers"):
        mapped(square, [1], executor="ray", address="nonsense")
