"""The predictors that benchmarks/predictor.py compares: ours, and references written here in few lines.

A method fits S predictors at once, one a seed, and gives back a function that scores cells. It sees the labels in its
`Task` and nothing else. S seeds, n labels, N graphs in the table, E cells to score, M members, P columns of features.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn

import finetune
import pretrain
import runtime
from models.batch import Batch
from models.blend import Blend
from models.ensemble import Ensemble
from models.paths import cell_features, path_columns, path_features
from models.trees import boosted_trees
from spaces import Space

SHARE = finetune.Config.kernel_share  # of the score, as finetune.py has it
SHIPPED = ("nasbench101", "nasbench201", "darts")  # spaces with an encoder in checkpoints/
SOURCE = 424  # labels on the other dataset that `from_dataset` starts from
Scorer = Callable[[np.ndarray], np.ndarray]  # rows of the table, int[E] -> scores, float[S, E]


@dataclass(frozen=True)
class Task:
    """What a method may read. rows int[S, n] of the table and their accuracies label float[S, n] are those of the seeds."""

    space: Space
    table: Batch
    rows: np.ndarray
    label: np.ndarray
    seeds: list[int]
    work: Path
    pretrain_steps: int
    accuracy_on: Callable[[str], np.ndarray] | None = None  # dataset -> accuracy to train on, float[N], or nan

    @property
    def operations(self) -> int:
        return len(self.space.ops)


class Method(NamedTuple):
    """fit(task, checkpoint) -> scorer; encoder(task) -> the checkpoint of the pre-trained encoder to start from, or None.

    shared: the encoder is made once, for all tasks, and kept in a file.
    """

    fit: Callable[[Task, dict | None], Scorer]
    encoder: Callable[[Task], dict | None] = lambda task: None
    shared: bool = False


# Networks on graphs, all fitted by finetune.py ------------------------------------------------------------------------

def network(recipe_of: Callable[[Task], finetune.Recipe], share: float = 0.0) -> Callable[[Task, dict | None], Scorer]:
    """The method that fits what the recipe describes, with that share of kernel regression."""

    def fit(task: Task, checkpoint: dict | None) -> Scorer:
        blend = fit_networks(task, recipe_of(task), share, checkpoint)
        return lambda rows: finetune.score_blend(blend, task.table, rows)

    return fit


def fit_networks(task: Task, recipe: finetune.Recipe, share: float, checkpoint: dict | None) -> Blend:
    with runtime.progress() as bar:
        line = bar.add_task("fit", total=finetune.steps(recipe, task.rows.shape[1]))
        examples = finetune.Examples(task.table, task.rows, task.label, task.seeds)
        return finetune.fit_blend(recipe, share, task.space.ops, checkpoint, examples, lambda: bar.advance(line))


def default(**changes) -> Callable[[Task], finetune.Recipe]:
    """The recipe of finetune.py, with changes."""
    return lambda task: dataclasses.replace(finetune.Recipe(), **changes)


def from_scratch(task: Task) -> finetune.Recipe:
    """The recipe that was tuned for an encoder without pre-training, on labels of seeds from 1,000 up: by a rule on n."""
    stage = "scratch_few" if task.rows.shape[1] < finetune.Config.gentle_below else "scratch"
    return runtime.parse(finetune.Config, ["--param", f"local:{settings_file(stage, task.space)}"], stage)


def published(stage: str) -> Callable[[Task], finetune.Recipe]:
    """The paper's settings for the stage: a batch is a tenth of the labels, one predictor a seed."""

    def recipe(task: Task) -> finetune.Recipe:
        batch = max(2, task.rows.shape[1] // 10)
        flags = ["--param", f"local:{settings_file(stage, task.space)}", "--finetune_batch_size", str(batch),
                 "--members", "1"]
        return runtime.parse(finetune.Config, flags, stage)

    return recipe


def settings_file(stage: str, space: Space) -> Path:
    """The space's file in params/, or the one for all spaces; else that of NAS-Bench-301, which DARTS takes as in the paper."""
    files = [runtime.ROOT / "params" / f"{name}.json" for name in (f"{stage}_{space.name}", stage, f"{stage}_nasbench301")]
    return next(file for file in files if file.exists())


def shipped(task: Task) -> dict:
    """Our pre-trained encoder in checkpoints/."""
    return runtime.load_encoder("default", task.space)


def from_space(name: str) -> Callable[[Task], dict]:
    """The encoder shipped for another space, moved to the operations of this one."""
    return lambda task: runtime.load_encoder(str(runtime.ROOT / "checkpoints" / f"{name}.pt"), task.space)


def from_dataset(dataset: str) -> Callable[[Task], dict]:
    """Predictors fine-tuned on SOURCE labels on another dataset, to go on from; for every seed its own."""

    def encoder(task: Task) -> dict:
        accuracy, checkpoint = task.accuracy_on(dataset), shipped(task)  # [N]
        known = np.flatnonzero(~np.isnan(accuracy))
        rows = np.stack([np.random.default_rng([seed, 102]).permutation(known)[:SOURCE] for seed in task.seeds])  # [S, n]
        source = dataclasses.replace(task, rows=rows, label=accuracy[rows])
        ensemble = fit_networks(source, finetune.Recipe(), 0.0, checkpoint).ensemble
        return checkpoint | {"members": [ensemble.member(i) for i in range(ensemble.size)]}

    return encoder


def pretrained_gat(task: Task) -> dict:
    """The paper's GAT, pre-trained as published but for the number of steps; an earlier one in the work folder is reused."""
    folder = task.work / f"gat_{task.space.name}_{task.pretrain_steps}"
    if not (folder / "result.json").exists():  # which pretrain.py writes last
        pretrain.main([
            "--space", task.space.name, "--save", str(folder), "--param", f"local:{settings_file('pretrain', task.space)}",
            "--iterations", str(task.pretrain_steps), "--resume", "--no-tensorboard",
            "--device", str(task.table.ops.device), "--threads", str(torch.get_num_threads())])
    return runtime.load_encoder(str(folder / "last.pt"), task.space)


# Models on rows of numbers --------------------------------------------------------------------------------------------

def path_mlp(task: Task, checkpoint: dict | None) -> Scorer:
    """The predictor of BANANAS (White et al., AAAI 2021): the mean of three MLPs on the path encoding."""
    members, count = 3, len(task.seeds)
    columns = path_columns(task.table, task.operations)  # [P]

    def read(rows: np.ndarray) -> torch.Tensor:
        return path_features(task.table.rows(torch.as_tensor(rows)), task.operations, columns)  # [E, P]

    x = read(task.rows.reshape(-1)).view(*task.rows.shape, -1).repeat_interleave(members, 0)  # [M, n, P]
    seeds = [runtime.mix(seed, i) for seed in task.seeds for i in range(members)]
    ensemble = fit_mlps(x, task.label.repeat(members, 0), seeds)

    @torch.no_grad()
    def score(rows: np.ndarray) -> np.ndarray:
        error = ensemble(read(rows).expand(ensemble.size, -1, -1))  # [M, E], standardised
        return -error.view(count, members, -1).mean(1).cpu().numpy()  # [S, E]

    return score


def fit_mlps(x: torch.Tensor, label: np.ndarray, seeds: list[int], epochs: int = 100) -> Ensemble:
    """M MLPs on features x [M, n, P] and accuracies label [M, n] in percent; each predicts its standardised error.

    Ten layers of 20, Adam at 0.01 and the loss |predicted - true| / (true - bound) of errors as in BANANAS; half of the
    lowest known error stands in for the bound, which there is known beforehand.
    """
    networks = []
    for seed in seeds:
        with runtime.seeded(seed, 1):
            networks.append(narrow_mlp(x.shape[-1]))
    ensemble = Ensemble(networks).to(x.device)
    error = 100 - torch.as_tensor(label, dtype=torch.float32, device=x.device)  # [M, n]
    weight = 1 / (error - error.amin(1, keepdim=True) / 2).clamp(min=1e-3)  # [M, n]
    error = (error - error.mean(1, keepdim=True)) / error.std(1, keepdim=True).clamp(min=1e-8)
    orders = [torch.Generator().manual_seed(runtime.mix(seed, 2)) for seed in seeds]
    optimiser = torch.optim.Adam(ensemble.parameters(), lr=0.01)
    with runtime.progress() as bar:
        for _ in bar.track(range(epochs), description="fit"):
            shuffled = torch.stack([torch.randperm(x.shape[1], generator=order) for order in orders]).to(x.device)  # [M, n]
            for index in shuffled.tensor_split(max(1, round(x.shape[1] / 32)), dim=1):
                off = ensemble(finetune.pick(x, index)) - error.gather(1, index)  # [M, b]
                loss = (off.abs() * weight.gather(1, index)).mean(1).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return ensemble.eval()


def narrow_mlp(columns: int, width: int = 20, layers: int = 10) -> nn.Sequential:
    """[B, P] -> [B]."""
    hidden = [nn.Linear(columns if i == 0 else width, width) for i in range(layers)]
    linear = [*hidden, nn.Linear(width, 1)]
    for layer in linear:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*(part for layer in hidden for part in (layer, nn.ReLU())), linear[-1], nn.Flatten(0))


def xgboost(task: Task, checkpoint: dict | None) -> Scorer:
    """Boosted trees on `cell_features`. Their labels are normal scores of the ranks: a few failed cells would else be all
    that a squared error sees. Settings chosen on seeds from 1,000 up, the same for every space."""
    columns = path_columns(task.table, task.operations)  # [P]

    def read(rows: np.ndarray) -> np.ndarray:
        return cell_features(task.table.rows(torch.as_tensor(rows)), task.operations, columns).cpu().numpy()  # [E, P]

    trees = []
    for seed, rows, label in zip(task.seeds, task.rows, task.label):
        x = read(rows)  # [n, P]
        varies = x.std(0) > 0  # [P]
        model = boosted_trees(
            x[:, varies], stats.norm.ppf(stats.rankdata(label) / (len(label) + 1)), seed, rounds=500, learning_rate=0.03,
            max_depth=6, min_child_weight=3, subsample=0.8, colsample_bytree=0.2, nthread=torch.get_num_threads())
        trees.append((model, varies))

    def score(rows: np.ndarray) -> np.ndarray:
        x = read(rows)  # [E, P]
        return np.stack([model(x[:, varies]) for model, varies in trees])  # [S, E]

    return score


METHODS = {
    "ours": Method(network(default(), SHARE), shipped),
    "ours_scratch": Method(network(default(), SHARE)),
    "scratch_tuned": Method(network(from_scratch, SHARE)),
    "ensemble": Method(network(default()), shipped),
    "ensemble_scratch": Method(network(default())),
    "gat": Method(network(published("train"))),
    "gat_pretrained": Method(network(published("end2end_finetune")), pretrained_gat, shared=True),
    "gat_frozen": Method(network(published("partial_finetune")), pretrained_gat, shared=True),
    "npnas": Method(network(default(base_model="npnas", width=144, layers=3, members=1))),
    "gates": Method(network(default(base_model="gates", width=128, layers=2, members=1))),
    "path_mlp": Method(path_mlp),
    "xgboost": Method(xgboost),
    **{f"from_{name}": Method(network(default(), SHARE), from_space(name)) for name in SHIPPED},
    "from_cifar10": Method(network(default(), SHARE), from_dataset("cifar10")),
}
