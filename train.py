"""Train a DARTS cell on CIFAR-10 and report its test accuracy.

    python train.py --arch DARTS_V2 --save runs/train/darts_v2 --seeds 0-2
    python train.py --arch runs/search/darts/best.json --data cifar10.npz --epochs 10 --layers 8 --init_channels 16
    torchrun --nproc_per_node 4 train.py --arch DARTS_V2          (data parallel; a batch is shared among the processes)

--save gets result.json, and a folder a seed with last.pt (after a kill the same command with --resume ends in the same
weights), log.jsonl and TensorBoard curves. The test images are looked at once, when a training has ended.
evaluate() is the training behind one query of `search.py --oracle train`; it validates and never opens the test images.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
from rich.table import Table
from torch import distributed

import executors
import images
import runtime
import spaces
from models import cnn
from runtime import setting
from spaces import InputError, darts
from training import Place, Recipe, Training, fit

SPACE = spaces.get("darts")


@dataclass
class Config(Recipe, executors.Settings):
    arch: str = setting("DARTS_V2", f"cell: Genotype(...), {', '.join(darts.NAMED)}, random:SEED, or a file with one of "
                                    "these or the best.json of search.py")
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz")
    download: bool = setting(False, "fetch the official archive into --data where it is not there")
    save: str = setting("runs/train/default", "folder for everything that this training writes")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    seeds: str = setting("0", "independent trainings, like 0,1,2 or 0-2: initial weights, order, augmentation")
    resume: bool = setting(False, "go on with the trainings in --save, or begin them where there are none")


@dataclass
class Budget(Recipe):
    """The cheaper training behind one query of a search."""

    epochs: int = setting(50, "passes over the training half", within=(1, 10**6))
    layers: int = setting(8, "cells", within=(cnn.SMALLEST, 1000))
    init_channels: int = setting(32, "channels of the first cell", within=(2, 10**5))
    subset: int = setting(0, "images in all, half to train on and half to validate on; 0 = all", within=(0, math.inf))
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz")
    tensorboard: bool = setting(False, "write TensorBoard curves")


def main(argv: list[str] | None = None) -> dict | None:
    """Returns what result.json holds; None in all processes but the first."""
    config = runtime.parse(Config, argv, __doc__)
    seeds, genotype = runtime.parse_seeds(config.seeds), parse_arch(config.arch)
    folder = Path(config.save).expanduser()
    if (folder / "config.json").exists() and not config.resume:
        raise InputError(f"{folder} holds a training already: go on with --resume or give another --save")
    with processes(config) as place:
        if place.rank == 0:
            if config.download:
                images.fetch(config.data)
            images.read(config.data, "test")  # which unpacks an archive, once
        if place.ranks > 1:
            distributed.barrier()  # until the images are there, and every process has looked for config.json
        if place.rank == 0 and not (folder / "config.json").exists():  # --resume may yet be refused
            runtime.write_json(folder / "config.json", dataclasses.asdict(config))
        if config.apart:
            results = train_apart(config, genotype, seeds)
        else:
            data = read_data(config)
            results = {seed: train_here(config, seed, place, data) for seed in seeds}
    return report(config, genotype, results, folder) if place.rank == 0 else None


def read_data(config: Config) -> tuple[images.Images, images.Images]:
    return images.read(config.data, "train"), images.read(config.data, "test")


def parse_arch(text: str) -> darts.Genotype:
    """The cell that --arch names. InputError where it names none."""
    if os.path.isfile(text):
        try:
            content = Path(text).read_text().strip()
            content = json.loads(content)["architecture"] if content.startswith("{") else content
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--arch {text}: neither a cell nor a best.json ({type(error).__name__})") from None
        return SPACE.parse(content)
    kind, _, seed = text.partition(":")
    if kind == "random" and seed.isdecimal():
        return SPACE.sample(1, np.random.default_rng(int(seed)))[0]
    return SPACE.parse(text)


@contextlib.contextmanager
def processes(config: Config) -> Iterator[Place]:
    """This process's place: alone, or one of those that torchrun has started, which share each batch."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1 and config.apart:
        raise InputError("torchrun shares each batch, --jobs and --executor ray share the seeds: use one of the two")
    if ranks == 1:
        yield Place(runtime.choose_device(config.device, config.threads))
        return
    own = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    device = runtime.choose_device(own if config.device == "auto" else config.device, config.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(device, distributed.get_rank(), ranks)
    finally:
        distributed.destroy_process_group()


def train_here(config: Config, seed: int, place: Place, data: tuple[images.Images, images.Images]) -> dict:
    """One seed, under a progress bar that counts images, so that its rate is images a second."""
    training = Training(config, parse_arch(config.arch), seed, place)
    folder = Path(config.save).expanduser() / str(seed)
    if place.rank > 0:
        return fit(training, data, folder)
    with runtime.progress() as bar:
        line = bar.add_task("", total=config.epochs * len(data[0]))

        def show(training: Training, batch: int) -> None:
            if not batch:  # the start, or the place where a killed run goes on
                done = training.epoch * len(data[0]) + sum(map(len, training.batches(len(data[0]))[:training.step]))
                bar.update(line, completed=done)
            loss = f" loss {training.loss:.3f}," if training.epoch else ""
            bar.update(line, advance=batch, description=f"seed {seed}, epoch {training.epoch + 1},{loss} images")

        return fit(training, data, folder, on_step=show)


def train_apart(config: Config, genotype: darts.Genotype, seeds: list[int]) -> dict[int, dict]:
    """The seeds side by side, where the executor computes them."""
    data, save = (str(Path(path).expanduser().absolute()) for path in (config.data, config.save))
    config = dataclasses.replace(config, arch=SPACE.text(genotype), data=data, save=save,
                                 threads=config.threads or config.cpus_per_run)
    with executors.open_executor(config) as executor, runtime.progress() as bar:
        line = bar.add_task("trainings", total=len(seeds))
        results = {}
        for (_, seed), result in executor.map(train_seed, [(config, seed) for seed in seeds]):
            results[seed] = result
            bar.advance(line)
    return {seed: results[seed] for seed in seeds}


def train_seed(task: tuple[Config, int]) -> dict:
    """One seed in a process of its own."""
    config, seed = task
    place = Place(runtime.choose_device(config.device, config.threads))
    training = Training(config, parse_arch(config.arch), seed, place)
    return fit(training, read_data(config), Path(config.save) / str(seed))


def report(config: Config, genotype: darts.Genotype, results: dict[int, dict], folder: Path) -> dict:
    """Write result.json and print it."""
    test = [result["scores"][-1] for result in results.values()]
    first = next(iter(results.values()))
    summary = {
        "architecture": SPACE.text(genotype), "key": SPACE.key(genotype), "seeds": list(results), "test": test,
        "test_mean": float(np.mean(test)), "test_std": float(np.std(test, ddof=1)) if len(test) > 1 else None,
        "parameters": first["parameters"], "macs": first["macs"], "epochs": config.epochs,
        "seconds": sum(result["seconds"] for result in results.values()), "device": first["device"],
    }
    runtime.write_json(folder / "result.json", summary)
    spread = "" if summary["test_std"] is None else f" ± {summary['test_std']:.2f}"
    columns = "test accuracy", "test error", "seeds", "parameters", "MACs", "hours"
    table = Table(*columns, title=f"CIFAR-10, {config.arch[:60]}")
    table.add_row(f"{summary['test_mean']:.2f}{spread} %", f"{100 - summary['test_mean']:.2f}{spread} %", str(len(test)),
                  f"{first['parameters']:,}", f"{first['macs'] / 1e6:.1f} M", f"{summary['seconds'] / 3600:.2f}")
    runtime.output.print(table)
    runtime.output.print(f"written: {folder / 'result.json'}")
    return summary


# Training as an oracle ------------------------------------------------------------------------------------------------

def evaluate(genotype: str, budget: dict, seed: int, folder: str) -> dict:
    """The label of a cell in a search: train it on one half of the training images, validate it on the other half.

    genotype  in any notation that the DARTS space parses      budget  fields of Budget that differ from its defaults
    seed      of the halves, the weights, the order            folder  of this training alone; a second call goes on there
    Returns {"validation": mean accuracy (percent) after each of the last min(5, epochs) epochs, "seconds", "parameters",
    "macs", "device"}. The test images are never read.
    """
    recipe = parse_budget(budget)
    place = Place(runtime.choose_device(recipe.device, recipe.threads))
    halves = images.halves(images.read(recipe.data, "train"), seed, recipe.subset)
    training = Training(recipe, SPACE.parse(genotype), seed, place)
    result = fit(training, halves, Path(folder), last=min(5, recipe.epochs))
    (Path(folder) / "last.pt").unlink(missing_ok=True)  # a search trains hundreds, and wants no weights
    facts = {name: result[name] for name in ("seconds", "parameters", "macs", "device")}
    return {"validation": float(np.mean(result["scores"]))} | facts


def parse_budget(values: dict) -> Budget:
    """InputError for an unknown field or a wrong value."""
    types = typing.get_type_hints(Budget)
    return Budget(**{name: runtime.checked(Budget, types, name, value, "--budget") for name, value in values.items()})


if __name__ == "__main__":
    runtime.main_guard(main)
