"""Run the grids of one or more ablations; each ends with a table, a JSON record and a picture.

    bash ablations/masking_ratio.sh                      the usual way: writes a grid and runs this script
    PRINT=1 bash ablations/masking_ratio.sh > my.grid    the grid as text (ablations/grid.py), to edit by hand
    python -m ablations.run --grids my.grid --out runs/ablations --seeds 0-4 --jobs 2

Finished runs are not repeated, and a killed run continues where it stopped, pre-training at its last
checkpoint. A setting that several grids share is computed once. A setting that fails (if its loss diverges)
is named at the end, and its grid gets no table; the other grids get theirs.
"""
from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console

import finetune
from ablations import grid as grids
from ablations import labels, report
from ablations.grid import Grid, Setting
from ablations.jobs import AblationRun, Job, chains, work
from figs import ablation as picture
from runtime.errors import InputError, main_guard
from runtime.executors import ExecutorSettings, open_executor
from runtime.files import path_of, write_json
from runtime.guarded import read_text
from runtime.locks import exclusive
from runtime.log import output, progress_bar
from runtime.seeding import DeviceSettings
from runtime.settings import parse, parse_seeds, setting


@dataclass
class Config(DeviceSettings):
    grids: str = setting("-", "text file with the grids; - = standard input", role="data")
    out: str = setting("runs/ablations", "folder of the runs", role="output")
    figs: str = setting("figs", "folder of the pictures, ABLATION_NAME.png", role="output")
    results: str = setting("results", "folder of the records, ablation_NAME.json", role="output")
    scale: str = setting("", "name of the budget, for the record", role="data")
    seeds: str = setting(
        "0-4", "fine-tuning seeds, like 0,1,2 or 0-9; a setting is pre-trained once", role="data")
    jobs: int = setting(
        1, "settings at a time, each in a process of its own", within=(1, 1024), role="machine")


def main(argv: list[str] | None = None) -> list[dict]:
    """Returns the records."""
    config = parse(Config, argv, __doc__)
    parse_seeds(config.seeds)
    machine = ("--device", config.device, "--threads", str(config.threads or int(config.jobs > 1)))
    run = AblationRun(path_of(config.out), config.seeds, machine)
    try:
        plans = [plan(grid, run) for grid in grids.read(given(config.grids))]
    except InputError as error:
        raise InputError(f"{config.grids}: {error}" if config.grids != "-" else str(error)) from None
    with exclusive(run.out, "--out"):
        todo = chains((row.first, row.then) for p in plans for row in p.rows)
        records, failures = [], []

        def report_finished() -> None:
            for p in [p for p in plans if p.done]:
                plans.remove(p)
                records.append(conclude(p, config))

        report_finished()
        # The bar has its own console, as jobs in this process send their output, bars included, to files.
        with (open_executor(ExecutorSettings(jobs=config.jobs)) as executor,
              progress_bar(Console(file=sys.stderr)) as bar):
            for _, failure in bar.track(executor.map(work, todo), total=len(todo), description="encoders"):
                failures += [failure] if failure else []
                report_finished()
    if failures:
        raise InputError(f"{len(failures)} of {len(todo)} settings failed; the first: {failures[0]}")
    return records


def given(path: str) -> str:
    return sys.stdin.read() if path == "-" else read_text(path_of(path), "give a file with grids")


class Row(NamedTuple):
    """A setting at n labels: its pre-training, if any, and its fine-tuning."""

    setting: Setting
    n: int
    first: Job | None
    then: Job


@dataclass(frozen=True)
class Plan:
    grid: Grid
    rows: tuple[Row, ...]

    @property
    def done(self) -> bool:
        return all(row.then.done for row in self.rows)


def plan(grid: Grid, run: AblationRun) -> Plan:
    """Plans the jobs of a grid; raises InputError, before any is computed, for flags that are not known."""
    shared = parse(finetune.Config, list(grids.filled(grid.finetune, grid.sizes[0])), "finetune.py")
    source = labels.table(grid, shared, run.out / "labels")
    return Plan(grid, tuple(
        Row(setting, n, run.pretraining(grid, setting), run.finetuning(grid, setting, source, n))
        for n in grid.sizes for setting in grid.settings))


def conclude(plan: Plan, config: Config) -> dict:
    """Reports a finished grid: prints the table and the paper's order, writes the record and the picture."""
    grid = plan.grid
    rows = [report.row(row.setting, row.n, row.then) for row in plan.rows]
    at_size = ([r for r in rows if r["n_labels"] == n] for n in grid.sizes)
    orderings = [found for found in map(report.ordering, at_size) if found]
    record = {"name": grid.name, "scale": config.scale, "grid": dataclasses.asdict(grid),
              "seeds": config.seeds, "rows": rows, "orderings": orderings}
    path = path_of(config.results) / f"ablation_{grid.name}.json"
    panel = path_of(config.figs) / f"ABLATION_{grid.name.upper()}.png"
    write_json(path, record)
    picture.plot(rows, panel, grid.title)
    output.print(report.table(grid, rows))
    if orderings:
        output.print(report.sentences(orderings))
    output.print(f"labels: {rows[0]['oracle']}\nwritten: {path}, {panel}")
    return record


if __name__ == "__main__":
    main_guard(main)
