"""The predictors that benchmarks/predictor.py compares: ours, and baselines written here in few lines.

A method fits S predictors at once, one per seed, and returns a function that scores cells. It sees the labels
in its `PredictorTask` and nothing else. Letters: S seeds, n labels, N graphs in the table, E cells to score,
M members, P columns of features.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import pretrain
from models.batch import Batch
from models.checkpoint import UNIVERSAL, load_encoder
from models.features.facts import portable_facts
from models.features.paths import cell_features, path_columns, path_features
from models.features.properties import cell_properties
from models.metrics import normal_scores
from models.predictor.blend import BlendedPredictor
from models.predictor.boosted_trees import boosted_trees
from models.predictor.fit import Examples, score_cells
from models.predictor.path_mlp import fit_path_mlps
from models.predictor.prior import load_prior
from models.predictor.self_training import TaughtRecipe, all_steps, fit_and_teach
from runtime.files import ROOT
from runtime.log import progress_bar
from runtime.seeding import mix
from runtime.settings import combined, stored_settings
from spaces import Space

SHIPPED = ("nasbench101", "nasbench201", "darts")  # spaces with an encoder in checkpoints/
SOURCE = 424  # labels on the other dataset that `from_dataset` starts from
Scorer = Callable[[np.ndarray], np.ndarray]  # rows of the table, int[E] -> scores, float[S, E]


@dataclass(frozen=True)
class PredictorTask:
    """The data that a method may read.

    rows int[S, n] of the table and their accuracies label float[S, n] are the training data of the seeds.
    """

    space: Space
    table: Batch
    rows: np.ndarray
    label: np.ndarray
    seeds: list[int]
    work: Path
    pretrain_steps: int
    # dataset -> accuracy to train on, float[N], nan if unknown
    accuracy_on: Callable[[str], np.ndarray] | None = None
    universal: str = ""  # file of the method of that name

    @property
    def operations(self) -> int:
        return len(self.space.ops)


class Method(NamedTuple):
    """A predictor to compare.

    fit(task, checkpoint) returns a scorer; encoder(task) the checkpoint of the pre-trained encoder to start
    from, or None. shared: the encoder is made once for all tasks and kept in a file. label_free: it can do
    without labels, n = 0.
    """

    fit: Callable[[PredictorTask, dict | None], Scorer]
    encoder: Callable[[PredictorTask], dict | None] = lambda task: None
    shared: bool = False
    label_free: bool = False


# Networks on graphs, all fitted as finetune.py does ---------------------------------------------------------

def network(
    recipe_of: Callable[[PredictorTask], TaughtRecipe],
) -> Callable[[PredictorTask, dict | None], Scorer]:
    """The method that fits networks by a recipe."""

    def fit(task: PredictorTask, checkpoint: dict | None) -> Scorer:
        predictor = fit_networks(task, recipe_of(task), checkpoint)
        return lambda rows: score_cells(predictor, task.table, rows)

    return fit


def fit_networks(task: PredictorTask, recipe: TaughtRecipe, checkpoint: dict | None) -> BlendedPredictor:
    with progress_bar() as bar:
        line = bar.add_task("fit", total=all_steps(recipe, task.rows.shape[1]))
        examples = Examples(task.table, task.rows, task.label, task.seeds)
        return fit_and_teach(recipe, task.space, checkpoint, examples, lambda: bar.advance(line))


def without_labels(task: PredictorTask, checkpoint: dict | None) -> Scorer:
    """The prior alone, learned on other spaces; the labels of the task are not read."""
    return network(default())(dataclasses.replace(task, rows=task.rows[:, :0], label=task.label[:, :0]), None)


def default(**changes) -> Callable[[PredictorTask], TaughtRecipe]:
    """The default recipe of finetune.py, with changes."""
    return lambda task: TaughtRecipe(**changes)


def published_encoder(**changes) -> Callable[[PredictorTask], TaughtRecipe]:
    """One network per seed, with an encoder of the literature, and nothing else of ours."""
    return default(members=1, kernel_share=0.0, prior="", **changes)


def from_scratch(task: PredictorTask) -> TaughtRecipe:
    """The recipe tuned for training from scratch, chosen by n; it was tuned on seeds from 1,000 on."""
    stage = "scratch_few" if task.rows.shape[1] < TaughtRecipe.gentle_below else "scratch"
    return stored_recipe(stage, task.space)


def published(stage: str) -> Callable[[PredictorTask], TaughtRecipe]:
    """The paper's settings of a stage: a batch is a tenth of the labels, one network per seed."""

    def recipe(task: PredictorTask) -> TaughtRecipe:
        batch = max(2, task.rows.shape[1] // 10)
        return dataclasses.replace(
            stored_recipe(stage, task.space), finetune_batch_size=batch, members=1, kernel_share=0.0)

    return recipe


def stored_recipe(stage: str, space: Space) -> TaughtRecipe:
    """Reads the recipe of a stage in params/."""
    return combined(TaughtRecipe, stored_settings(f"local:{settings_file(stage, space)}"))


def settings_file(stage: str, space: Space) -> Path:
    """The space's file in params/, or the one for all spaces, or NAS-Bench-301's.

    DARTS takes the file of NAS-Bench-301, as in the paper.
    """
    files = [
        ROOT / "params" / f"{name}.json" for name in (f"{stage}_{space.name}", stage, f"{stage}_nasbench301")]
    return next(file for file in files if file.exists())


def shipped(task: PredictorTask) -> dict:
    """The checkpoint of our pre-trained encoder in checkpoints/."""
    return load_encoder("default", task.space)


def from_space(name: str) -> Callable[[PredictorTask], dict]:
    """The encoder shipped for another space, transferred to the operations of this one."""
    return lambda task: load_encoder(str(ROOT / "checkpoints" / f"{name}.pt"), task.space)


def universal(task: PredictorTask) -> dict:
    """The encoder for all spaces: the shipped one, or another file."""
    return load_encoder(task.universal or str(UNIVERSAL), task.space)


def from_dataset(dataset: str) -> Callable[[PredictorTask], dict]:
    """Predictors fine-tuned on SOURCE labels of another dataset, one per seed, to start from."""

    def encoder(task: PredictorTask) -> dict:
        accuracy, checkpoint = task.accuracy_on(dataset), shipped(task)  # [N]
        known = np.flatnonzero(~np.isnan(accuracy))
        rows = np.stack(
            [np.random.default_rng([seed, 102]).permutation(known)[:SOURCE] for seed in task.seeds])  # [S, n]
        source = dataclasses.replace(task, rows=rows, label=accuracy[rows])
        ensemble = fit_networks(source, TaughtRecipe(kernel_share=0.0), checkpoint).ensemble
        return checkpoint | {"members": [ensemble.member(i) for i in range(ensemble.size)]}

    return encoder


def pretrained_gat(task: PredictorTask) -> dict:
    """The paper's GAT, pre-trained as published but for the number of steps; kept in the work folder."""
    folder = task.work / f"gat_{task.space.name}_{task.pretrain_steps}"
    if not (folder / "result.json").exists():  # pretrain.py writes it last
        pretrain.main([
            "--space", task.space.name, "--save", str(folder),
            "--param", f"local:{settings_file('pretrain', task.space)}",
            "--iterations", str(task.pretrain_steps), "--resume", "--no-tensorboard",
            "--device", str(task.table.ops.device), "--threads", str(torch.get_num_threads())])
    return load_encoder(str(folder / "last.pt"), task.space)


# Models on rows of numbers ----------------------------------------------------------------------------------

def path_mlp(task: PredictorTask, checkpoint: dict | None) -> Scorer:
    """The predictor of BANANAS (White et al., AAAI 2021): the mean of three MLPs on the path encoding."""
    members, count = 3, len(task.seeds)
    columns = path_columns(task.table, task.operations)  # [P]

    def read(rows: np.ndarray) -> torch.Tensor:
        return path_features(task.table.rows(torch.as_tensor(rows)), task.operations, columns)  # [E, P]

    x = read(task.rows.reshape(-1)).view(*task.rows.shape, -1).repeat_interleave(members, 0)  # [M, n, P]
    seeds = [mix(seed, i) for seed in task.seeds for i in range(members)]
    mlps = fit_path_mlps(x, task.label.repeat(members, 0), seeds)

    def score(rows: np.ndarray) -> np.ndarray:
        return mlps.score(read(rows).expand(len(seeds), -1, -1)).reshape(count, members, -1).mean(1)  # [S, E]

    return score


def xgboost(task: PredictorTask, checkpoint: dict | None) -> Scorer:
    """Boosted trees on `cell_features`."""
    columns = path_columns(task.table, task.operations)  # [P]
    return boosted(task, lambda cells: cell_features(cells, task.operations, columns))


def analytic_trees(with_prior: bool) -> Callable[[PredictorTask, dict | None], Scorer]:
    """Boosted trees on the analytic properties and facts, and the prior's score as one more column."""

    def fit(task: PredictorTask, checkpoint: dict | None) -> Scorer:
        vocabulary = task.space.vocabulary
        prior = load_prior(vocabulary) if with_prior else None

        def features(cells: Batch) -> torch.Tensor:
            facts = portable_facts(cells, vocabulary)
            known = [cell_properties(cells, vocabulary), facts]
            return torch.cat(known + ([prior.of_facts(facts)[:, None]] if prior else []), dim=1)  # [E, P]

        return boosted(task, features)

    return fit


def boosted(task: PredictorTask, features: Callable[[Batch], torch.Tensor]) -> Scorer:
    """Boosted trees on features, with settings chosen on seeds from 1,000 on, equal for all spaces.

    Their labels are normal scores of the ranks, as a few failed cells would dominate the squared error.
    """

    def read(rows: np.ndarray) -> np.ndarray:
        return features(task.table.rows(torch.as_tensor(rows))).cpu().numpy()  # [E, P]

    trees = []
    for seed, rows, label in zip(task.seeds, task.rows, task.label):
        x = read(rows)  # [n, P]
        varies = x.std(0) > 0  # [P]
        model = boosted_trees(
            x[:, varies], normal_scores(label, label), seed, rounds=500, learning_rate=0.03, max_depth=6,
            min_child_weight=3, subsample=0.8, colsample_bytree=0.2, nthread=torch.get_num_threads())
        trees.append((model, varies))

    def score(rows: np.ndarray) -> np.ndarray:
        x = read(rows)  # [E, P]
        return np.stack([model(x[:, varies]) for model, varies in trees])  # [S, E]

    return score


METHODS = {
    "ours": Method(network(default()), shipped, label_free=True),
    "self_trained": Method(network(default(unlabelled=15)), shipped),
    "without_prior": Method(network(default(prior="")), shipped),
    "universal": Method(network(default()), universal, label_free=True),
    "prior": Method(without_labels, label_free=True),
    "ours_scratch": Method(network(default(prior=""))),
    "scratch_tuned": Method(network(from_scratch)),
    "ensemble": Method(network(default(kernel_share=0.0)), shipped),
    "ensemble_scratch": Method(network(default(kernel_share=0.0, prior=""))),
    "process": Method(network(default(kernel_share=1.0)), shipped, label_free=True),
    "gat": Method(network(published("train"))),
    "gat_pretrained": Method(network(published("end2end_finetune")), pretrained_gat, shared=True),
    "gat_frozen": Method(network(published("partial_finetune")), pretrained_gat, shared=True),
    "npnas": Method(network(published_encoder(base_model="npnas", width=144, layers=3))),
    "gates": Method(network(published_encoder(base_model="gates", width=128, layers=2))),
    "path_mlp": Method(path_mlp),
    "xgboost": Method(xgboost),
    "trees": Method(analytic_trees(with_prior=False)),
    "trees_prior": Method(analytic_trees(with_prior=True)),
    **{f"from_{name}": Method(network(default()), from_space(name)) for name in SHIPPED},
    "from_cifar10": Method(network(default()), from_dataset("cifar10")),
}
