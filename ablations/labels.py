"""The label table of an ablation: a given number of cells of a larger table, or labelled by a surrogate."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import gen_json_301
from ablations.grid import Grid
from ablations.jobs import content, digest
from runtime.errors import InputError
from runtime.files import path_of, write_text
from spaces import get
from spaces.labels.read import Labels, read_labels


def table(grid: Grid, config, out: Path) -> str:
    """The --labels of finetune.py: grid.labels itself, or a file made once in the folder `out`.

    config: finetune.py's, as far as all settings of the grid share it.
    From a larger table, grid.cells of the cells with a validation accuracy are drawn uniformly, the same for
    all settings; other cells are left out. A surrogate (.onnx, or a folder) labels as many random cells.
    """
    source = path_of(grid.labels)
    origin = digest([content(grid.labels), config.space, config.dataset, config.run])
    made = out / f"{origin}_{grid.cells}.jsonl"
    if source.suffix == ".onnx" or source.is_dir():
        if not grid.cells:
            raise InputError(f"grid {grid.name}: a surrogate labels any number of cells: give more than 0")
        gen_json_301.main(["--n", str(grid.cells), "--out", str(made), "--oracle", str(source)])
        return str(made)
    if not grid.cells:
        return grid.labels
    if made.exists():
        return str(made)
    space = get(config.space, config.cell_marks)
    known = read_labels(grid.labels, space, config.dataset, config.run)
    labelled = np.flatnonzero(~np.isnan(known.val))  # [L]
    by_key = labelled[np.argsort([known.keys[row] for row in labelled])]  # [L], for any order of the file
    chosen = np.sort(np.random.default_rng(0).permutation(by_key)[:grid.cells])
    write(made, known.select(chosen))
    return str(made)


def write(path: Path, known: Labels) -> None:
    """Writes the labels as JSON lines, in percent."""
    rows = [{"header": {"oracle": known.name}}]
    for key, val, test in zip(known.keys, known.val.tolist(), known.test.tolist()):
        rows.append({"arch": key, "val_accuracy": val, "test_accuracy": None if np.isnan(test) else test})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(path, text)
