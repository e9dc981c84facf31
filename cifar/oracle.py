"""The oracle of the real task: a query trains the cell on CIFAR-10 and validates it (`evaluate`).

    with open_executor(settings) as executor:
        setup = Setup(space, seed=0, folder=outdir, executor=executor)
        oracle = TrainingOracle({"data": "cifar10.npz", "epochs": 10}, setup)
        oracle.prepare(archs)        # trains those not trained yet, in parallel if the executor can
        oracle.query(archs[0])       # Record(val, test=None, cost=seconds of training)

The folder is that of `spaces.oracles.trained`. Each training's folder has its log and checkpoint, and a
killed training resumes from the latter. One that diverged is finished, too: its line says so under `failed`,
and its accuracy is chance level, so that the search continues.
"""
from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from cifar.images import random_halves, read_images
from cifar.network import SMALLEST
from cifar.training import CifarRecipe, Diverged, Training, fit
from runtime.errors import InputError
from runtime.files import path_of
from runtime.seeding import choose_device, device_name
from runtime.settings import checked, fingerprint, setting, stored_settings
from runtime.workers import Worker
from spaces.darts import DARTS
from spaces.oracles.trained import Setup, TrainedOracle, TrainingLine

SIZES = ("epochs", "layers", "init_channels", "subset")  # of a recipe: always part of the oracle's name
CHANCE = 10.0  # percent, of ten equally frequent classes


# One query --------------------------------------------------------------------------------------------------

@dataclass
class ProxyRecipe(CifarRecipe):
    """How a cell is trained for a query of a search, more cheaply than by train.py."""

    epochs: int = setting(50, "passes over the training half", within=(1, 10**6))
    layers: int = setting(8, "cells", within=(SMALLEST, 1000))
    init_channels: int = setting(32, "channels of the first cell", within=(2, 10**5))
    subset: int = setting(
        0, "images in all, half to train on and half to validate on; 0 = all", within=(0, math.inf))
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz", role="data")
    tensorboard: bool = setting(False, "write TensorBoard curves", role="output")


def evaluate(genotype: str, recipe: dict, seed: int, folder: str) -> dict:
    """Trains a cell on one half of the training images and validates it on the other half.

    genotype  in any notation that the DARTS space parses
    recipe    fields of ProxyRecipe that differ from its defaults
    seed      of the halves, the weights, the order
    folder    of this training alone; a second call resumes from it
    Returns {"validation": accuracy in percent, averaged over the last min(5, epochs) epochs, "seconds",
    "parameters", "macs", "device"}. The test images are never read.
    """
    proxy = proxy_recipe(recipe)
    worker = Worker(choose_device(proxy.device, proxy.threads))
    halves = random_halves(read_images(proxy.data, "train"), seed, proxy.subset)
    training = Training(proxy, DARTS().parse(genotype), seed, worker)
    result = fit(training, halves, Path(folder), last=min(5, proxy.epochs))
    (Path(folder) / "last.pt").unlink(missing_ok=True)  # a search trains hundreds and needs no weights
    facts = {name: result[name] for name in ("seconds", "parameters", "macs", "device")}
    return {"validation": float(np.mean(result["scores"]))} | facts


def proxy_recipe(values: dict, where: str = "--budget") -> ProxyRecipe:
    """Builds a recipe from fields by name.

    Raises InputError, which names the source `where`, for an unknown field or a wrong value.
    """
    return ProxyRecipe(
        **{name: checked(ProxyRecipe, name, value, where) for name, value in values.items()})


def parse_budget(text: str) -> dict:
    """Reads "epochs=10,layers=8", or local:FILE with one JSON object -> {"epochs": 10, "layers": 8}."""
    if text.startswith("local:"):
        values, where = stored_settings(text)
    else:
        where = "--budget"
        values = dict(pair.partition("=")[::2] for pair in filter(None, text.split(",")))
        switch = {"true": True, "false": False}
        values = {name.strip(): switch.get(value.lower(), value) for name, value in values.items()}
    recipe = proxy_recipe(values, where)
    return {name: getattr(recipe, name) for name in values}


def name_of(recipe: ProxyRecipe) -> str:
    """Names an oracle by the size of its training and by the settings that differ from the defaults."""
    usual = ProxyRecipe()
    said = [f"{name} {value}" for name, value in fingerprint(recipe, roles=("recipe",)).items()
            if name in SIZES or value != getattr(usual, name)]
    return f"trained on CIFAR-10 ({Path(recipe.data).name}): {', '.join(said)}"


# The oracle -------------------------------------------------------------------------------------------------

@dataclass
class OracleSettings:
    """Which oracle answers a query, and how it trains."""

    oracle: str = setting(
        "labels", "what answers a query: labels = --labels; train = training the cell on CIFAR-10 (space "
        "darts); a training that diverges counts as 10 %, chance level; 'command: PROGRAM {architecture}' = "
        "your own program, which prints a line of JSON, {\"accuracy\": PERCENT}, last (docs/search.md)",
        role="data")
    data: str = setting(
        "~/datasets", "oracle train: CIFAR-10, a folder with the official archive, or an .npz", role="data")
    budget: str = setting(
        "", "oracle train: recipe of a training, local:FILE or flags of train.py like "
        "epochs=10,init_channels=8,layers=5,subset=5000; empty = the paper's 50 epochs, 32 channels, 8 cells",
        role="data")


class CifarLine(TrainingLine):
    validation: Annotated[float, msgspec.Meta(ge=0, le=100)]


class TrainingTask(NamedTuple):
    """The arguments of `evaluate`."""

    architecture: str
    recipe: dict
    seed: int
    folder: str


def run_task(task: TrainingTask) -> dict:
    """Returns the result of `evaluate`, or chance level with the reason under "failed" if it diverges."""
    started = time.perf_counter()
    try:
        return evaluate(*task)
    except Diverged as error:
        (Path(task.folder) / "last.pt").unlink(missing_ok=True)
        recipe = proxy_recipe(task.recipe)
        device = device_name(choose_device(recipe.device, recipe.threads))
        return {"validation": CHANCE, "seconds": time.perf_counter() - started,
                "device": device, "failed": str(error)}


class TrainingOracle(TrainedOracle):
    """Answers a query by training. Its name states the recipe, so a search with another budget is another."""

    line = CifarLine
    what = "budget, images"

    def __init__(self, recipe: dict, setup: Setup, images: str = ""):
        """recipe: fields of ProxyRecipe that differ from its defaults. images: their `Images.digest`.

        The seed is that of the halves of the images, the weights, the order. Raises InputError for a space
        without DARTS cells, a wrong recipe, or a folder whose trainings have another recipe, seed or images.
        """
        if setup.space.ops != DARTS.ops:
            raise InputError(f"--oracle train: {setup.space.name} has no cells that train.py can train; "
                             "--search_space darts has")
        proxy = proxy_recipe(recipe)
        decided = [fingerprint(proxy, roles=("recipe",)), images, setup.seed]
        self.recipe = recipe
        super().__init__(
            name_of(proxy), hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest(), setup)

    def same(self, line: TrainingLine) -> bool:
        if line.digest:
            return super().same(line)
        return (line.oracle, line.seed) == (self.name, self.seed)  # earlier versions stored no digest

    def run(self) -> Callable[[TrainingTask], dict]:
        return run_task

    def task(self, key: str, arch: Any) -> TrainingTask:
        return TrainingTask(self.space.text(arch), self.recipe, self.seed, str(self.place(key)))


def open_training(settings: OracleSettings, machine: dict, setup: Setup) -> TrainingOracle:
    """Opens the oracle of a search, which trains in the search's folder with its seed.

    machine: the search's device and threads.
    """
    images = read_images(settings.data, "train").digest()  # finds a fault now, and unpacks an archive once
    data = str(path_of(settings.data).absolute())
    return TrainingOracle(parse_budget(settings.budget) | {"data": data} | machine, setup, images)
