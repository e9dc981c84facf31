"""Train a DARTS cell on CIFAR-10 and report its test accuracy.

    python train.py --arch DARTS_V2 --save runs/train/darts_v2 --seeds 0-2
    python train.py --arch runs/search/darts/best.json --data cifar10.npz \\
        --epochs 10 --layers 8 --init_channels 16
    torchrun --nproc_per_node 4 train.py --arch DARTS_V2      # data parallel: 4 processes share each batch

--save gets result.json and one folder per seed, with last.pt, log.jsonl and TensorBoard curves. After a kill,
the same command with --resume ends in the same weights. The test images are used once, at the end of a
training run. The training behind one query of `search.py --oracle train` is in cifar/oracle.py.
"""
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import distributed

from cifar.images import Images, fetch_archive, read_images
from cifar.training import CifarRecipe, Training, fit
from runtime.errors import InputError, main_guard
from runtime.executors import ExecutorSettings, open_executor
from runtime.files import path_of, write_json
from runtime.guarded import read_checked
from runtime.locks import exclusive
from runtime.log import mean_std, output, plus_minus, progress_bar
from runtime.seeding import choose_device
from runtime.settings import by_content, check_same, command_of, fingerprint, parse, parse_seeds, setting
from runtime.workers import Worker, open_worker, processes
from spaces.darts import DARTS, NAMED, Genotype, architecture_of

SPACE = DARTS()


@dataclass
class Config(CifarRecipe, ExecutorSettings):
    arch: str = setting(
        "DARTS_V2", f"cell: Genotype(...), {', '.join(NAMED)}, random:SEED, a file with one of these, or "
        "the best.json of search.py", role="data")
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz", role="data")
    download: bool = setting(False, "fetch the official archive into --data if it is not there", role="data")
    save: str = setting("runs/train/default", "folder for all files of this training", role="output")
    param: str = setting(
        "default", "settings from local:FILE (see params/), from a running sweep (nni), or default",
        role="output")
    seeds: str = setting(
        "0", "independent trainings, like 0,1,2 or 0-2; a seed decides initial weights, order and "
        "augmentation", role="data")
    resume: bool = setting(False, "continue the trainings in --save, if there are any", role="output")


def main(argv: list[str] | None = None) -> dict | None:
    """Returns the content of result.json; None in all processes but the first."""
    config = parse(Config, argv, __doc__)
    seeds, genotype = parse_seeds(config.seeds), architecture_of(config.arch)
    folder = path_of(config.save)
    if (folder / "config.json").exists() and not config.resume:
        raise InputError(f"{folder} holds a training already: go on with --resume or give another --save")
    with worker_of(config) as worker:
        if worker.rank == 0 and config.download:
            fetch_archive(config.data)
        decided = decided_by(config, genotype) if worker.rank == 0 else {}  # unpacks an archive, once
        if worker.ranks > 1:
            distributed.barrier()  # until the images exist and every process has looked for config.json
        with folder_of(config, decided, worker):
            if config.apart:
                results = train_apart(config, genotype, seeds)
            else:
                data = read_data(config)
                results = {seed: train_here(config, seed, worker, data) for seed in seeds}
            return report(config, genotype, results, folder) if worker.rank == 0 else None


def decided_by(config: Config, genotype: Genotype) -> dict:
    """The fingerprint of all trainings in a folder, which more seeds may join."""
    images = [read_images(config.data, part).digest() for part in ("train", "test")]
    decided = by_content(fingerprint(config) | {"arch": SPACE.key(genotype)}, data="".join(images))
    return {name: value for name, value in decided.items() if name not in ("seeds", "download")}


@contextlib.contextmanager
def folder_of(config: Config, decided: dict, worker: Worker) -> Iterator[None]:
    """Keeps other trainings out of --save; the first of torchrun's processes does it for all."""
    if worker.rank:
        yield
        return
    with exclusive(path_of(config.save), "--save"):
        open_folder(config, decided, path_of(config.save))
        yield


def open_folder(config: Config, decided: dict, folder: Path) -> None:
    """Writes config.json; raises InputError if the folder holds trainings of another cell or recipe."""
    path = folder / "config.json"
    if path.exists():
        if not config.resume:
            raise InputError(f"{folder} holds a training already: go on with --resume or give another --save")
        stored = read_checked(path, dict[str, Any], "remove it, or name another folder")
        check_same(stored.get("decided", stored), decided, path, {"arch": config.arch, "data": config.data})
    else:
        write_json(path, dataclasses.asdict(config) | {
            "decided": decided, "command": command_of("train.py", config, "save")})


def read_data(config: Config) -> tuple[Images, Images]:
    return read_images(config.data, "train"), read_images(config.data, "test")


@contextlib.contextmanager
def worker_of(config: Config) -> Iterator[Worker]:
    """Yields this process's worker: the only one, or one of torchrun's, which share each batch."""
    if processes() > 1 and config.apart:
        raise InputError(
            "torchrun shares each batch, --jobs and --executor ray share the seeds: use one of the two")
    with open_worker(config.device, config.threads) as worker:
        yield worker


def train_here(config: Config, seed: int, worker: Worker, data: tuple[Images, Images]) -> dict:
    """Trains one seed under a progress bar that counts images, so that its rate is images per second."""
    training = Training(config, architecture_of(config.arch), seed, worker)
    folder = path_of(config.save) / str(seed)
    if worker.rank > 0:
        return fit(training, data, folder)
    with progress_bar() as bar:
        line = bar.add_task("", total=config.epochs * len(data[0]))

        def show(training: Training, batch: int) -> None:
            if not batch:  # the start, or where a killed run continues
                done = training.epoch * len(data[0]) + sum(
                    map(len, training.batches(len(data[0]))[: training.step]))
                bar.update(line, completed=done)
            loss = f" loss {training.loss:.3f}," if training.epoch else ""
            bar.update(
                line, advance=batch, description=f"seed {seed}, epoch {training.epoch + 1},{loss} images")

        return fit(training, data, folder, on_step=show)


def train_apart(config: Config, genotype: Genotype, seeds: list[int]) -> dict[int, dict]:
    """Trains the seeds side by side on the executor."""
    data, save = (str(path_of(path).absolute()) for path in (config.data, config.save))
    config = dataclasses.replace(config, arch=SPACE.text(genotype), data=data, save=save,
                                 threads=config.threads or config.cpus_per_run)
    with open_executor(config) as executor, progress_bar() as bar:
        line = bar.add_task("trainings", total=len(seeds))
        results = {}
        for (_, seed), result in executor.map(train_seed, [(config, seed) for seed in seeds]):
            results[seed] = result
            bar.advance(line)
    return {seed: results[seed] for seed in seeds}


def train_seed(task: tuple[Config, int]) -> dict:
    """Trains one seed in a process of its own."""
    config, seed = task
    worker = Worker(choose_device(config.device, config.threads))
    training = Training(config, architecture_of(config.arch), seed, worker)
    return fit(training, read_data(config), Path(config.save) / str(seed))


def report(config: Config, genotype: Genotype, results: dict[int, dict], folder: Path) -> dict:
    """Writes result.json and prints its table."""
    test = [result["scores"][-1] for result in results.values()]
    first, (mean, std) = next(iter(results.values())), mean_std(test)
    summary = {
        "architecture": SPACE.text(genotype),
        "key": SPACE.key(genotype),
        "seeds": list(results),
        "test": test,
        "test_mean": mean,
        "test_std": std,
        "parameters": first["parameters"],
        "macs": first["macs"],
        "epochs": config.epochs,
        "seconds": sum(result["seconds"] for result in results.values()),
        "device": first["device"],
    }
    write_json(folder / "result.json", summary)
    columns = "test accuracy", "test error", "seeds", "parameters", "MACs", "hours"
    table = Table(*columns, title=f"CIFAR-10, {config.arch[:60]}")
    table.add_row(
        f"{plus_minus(mean, std, 2)} %", f"{plus_minus(100 - mean, std, 2)} %", str(len(test)),
        f"{first['parameters']:,}", f"{first['macs'] / 1e6:.1f} M", f"{summary['seconds'] / 3600:.2f}")
    output.print(table)
    output.print(f"written: {folder / 'result.json'}")
    return summary


if __name__ == "__main__":
    main_guard(main)
