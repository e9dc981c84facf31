"""Pre-train a graph encoder on unlabelled architectures.

    python pretrain.py --space nasbench201 --save runs/pretrain/nasbench201
    python pretrain.py --space nasbench101 --save runs/gat101 --param local:params/pretrain_nasbench101.json
    python pretrain.py --space nasbench201 --save runs/pretrain/graphcl --model_type graphcl
    python pretrain.py --space universal --save runs/universal --iterations 1500   # for any space
    torchrun --nproc_per_node 4 pretrain.py --space nasbench101 --save runs/101  # processes share each batch

--save gets last.pt (the encoder, from which --resume continues), config.json, log.jsonl and TensorBoard
curves. Several processes make the steps of one, up to rounding and the draws of dropout.
"""
from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import spaces
from models.batch import Batch
from models.checkpoint import about_space
from models.encoders import ENCODERS, build_encoder, encoder_config
from models.encoders.described import describe
from models.features.operations import FEATURES
from models.metrics import kendall_tau
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    fit_ensemble,
    new_networks,
    score_ensemble,
)
from models.pretext.corpus import Corpus
from models.pretext.regression import target_tables
from models.pretext.run import Run
from models.pretext.tasks import MODEL_TYPES, TASKS, MaskSettings, Pretext, need_company, parse_tasks
from models.pretext.two_view import ViewSettings
from runtime.checkpoint import save_checkpoint
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json
from runtime.locks import exclusive, need_free
from runtime.log import Log, console, output, progress_bar
from runtime.seeding import DeviceSettings, seeded, set_rng_state
from runtime.settings import (
    by_content,
    command_of,
    fingerprint,
    parse,
    report_to_sweep,
    setting,
)
from runtime.workers import Worker, open_worker
from spaces import Space
from spaces.labels.protocols import RANKING_PROTOCOLS, split
from spaces.labels.read import read_labels
from spaces.metrics import metric_of
from spaces.universal import KNOWN, Universal, unlabelled

SAVE_SECONDS = 60  # at most between two checkpoints


@dataclass
class Config(DeviceSettings):
    space: str = setting(
        "nasbench201", f"{spaces.HELP}; universal = the built-in ones and generated ones", role="data")
    without: str = setting(
        "", f"--space universal: a space that is left out, one of {', '.join(KNOWN)}", role="data")
    save: str = setting(
        "runs/pretrain/default", "folder for last.pt, config.json, log.jsonl and TensorBoard curves",
        role="output")
    param: str = setting(
        "default", "settings from local:FILE (see params/), from a running sweep (nni), or default",
        role="output")
    base_model: str = setting("transformer", "encoder", tuple(ENCODERS))
    width: int = setting(64, "width D of the encoder", within=(1, 4096))
    layers: int = setting(4, "layers of the encoder", within=(1, 100))
    heads: int = setting(4, "attention heads of the encoder", within=(1, 64))
    direction: bool = setting(True, "transformer: tell forward from backward edges (off = an ablation)")
    dropout: float = setting(0.2, "dropout of the encoder", within=(0, 0.95))
    tasks: str = setting(
        "mask,flow,signature,properties,contrast",
        f"pretext tasks, a comma list of {', '.join(TASKS)} (models/pretext/tasks.py)")
    model_type: str = setting(
        "", "a single task in place of --tasks, by its name in the paper's code (mae = mask)",
        ("", *MODEL_TYPES))
    mask_ratio: float = setting(
        0.5, "share of a graph's operations that are masked: max(1, round(ratio n)) of n vertices",
        within=(0, 1))
    pretrain_target: str = setting("masked", "vertices that enter the loss", ("masked", "all"))
    edge_ratio: float = setting(0.3, "task edges: share of the vertex pairs that are hidden", within=(0, 1))
    view_ratio: float = setting(
        0.25, "task contrast: share of the operations that a view masks", within=(0, 1))
    temperature: float = setting(
        0.2, "tasks contrast, graphcl, grace: temperature of the softmax (GRACE's authors: 0.4 to 0.9)",
        within=(0.01, 10))
    edge_drop: float = setting(
        0.2, "tasks graphcl, bgrl, grace, barlow_twins: probability that a view drops an edge", within=(0, 1))
    feature_mask: float = setting(
        0.2, "the same tasks: share of the operations of the vocabulary that a view masks at all their "
        "vertices (graphcl: share of the vertices)", within=(0, 1))
    node_drop: float = setting(
        0.2, "task graphcl: share of a graph's vertices that a view drops", within=(0, 0.5))
    teleport: float = setting(
        0.2, "task mvgrl: teleport probability of the PageRank diffusion; lower spreads further",
        within=(0.01, 0.99))
    target_momentum: float = setting(
        0.99, "task bgrl: momentum of the target encoder at the first step, rising to 1", within=(0, 1))
    batch_size: int = setting(512, "graphs per step", within=(1, math.inf))
    iterations: int = setting(600, "steps", within=(1, math.inf))
    lr: float = setting(2e-3, "peak learning rate (AdamW, cosine after warm-up)", within=(0, math.inf))
    weight_decay: float = setting(1e-2, "AdamW weight decay", within=(0, math.inf))
    warmup: float = setting(0.05, "share of the steps in which the learning rate rises", within=(0, 1))
    archs: int = setting(
        60_000, "architectures to train on, drawn uniformly from a larger space (0 = the whole space)",
        within=(0, math.inf), role="data")
    data: str = setting(
        "", "file of architectures to train on instead, as gen_json_301.py writes it", role="data")
    cell_marks: bool = setting(
        True, "DARTS spaces: mark vertices as normal or reduction cell (off = the paper's graph)")
    seed: int = setting(
        0, "seed of weights, architectures, batches and masks", within=(0, math.inf), role="data")
    compile: bool = setting(
        False, "torch.compile the encoder: a start of up to minutes, then faster steps; where no compiler "
        "works, nothing changes", role="machine")
    resume: bool = setting(False, "continue from last.pt in --save, if it exists", role="output")
    labels: str = setting(
        "", "label table for a small fine-tuning probe after each tenth of the run; it is logged and chooses "
        "nothing here (in a sweep, the last probe is the trial's result)", role="output")
    dataset: str = setting(
        "cifar10", "data set, if the label table covers several", role="output")
    metric: str = setting("", "column of the label table for the probe (empty = accuracy)", role="output")
    lower_is_better: bool = setting(
        False, "with --metric: the lowest value is the best", role="output")
    protocol: str = setting(
        "", "protocol of the probe (empty = by space)", ("", *RANKING_PROTOCOLS), role="output")
    finetune_train_samples: int = setting(100, "labels of the probe", within=(2, math.inf), role="output")
    finetune_batch_size: int = setting(
        0, "batch size of the probe (0 = 64)", within=(0, math.inf), role="output")
    finetune_fixed_encoder: bool = setting(False, "freeze the encoder in the probe", role="output")
    export: str = setting(
        "", "file for the bare encoder (no optimiser, no heads), written at the end", role="output")
    tensorboard: bool = setting(True, "write TensorBoard curves", role="output")


def main(argv: list[str] | None = None) -> float:
    """Returns the mean loss of the last tenth of the run."""
    config = parse(Config, argv, __doc__)
    with open_worker(config.device, config.threads) as worker:
        return pretrain(config, worker)


def pretrain(config: Config, worker: Worker) -> float:
    """Pre-trains in this process, the only one or one of several that share each batch."""
    tasks = (MODEL_TYPES[config.model_type],) if config.model_type else parse_tasks(config.tasks)
    folder = path_of(config.save)
    if config.export and path_of(config.export).is_dir():
        raise InputError(f"--export {config.export} is a folder: name a file")
    need_company(tasks, config.batch_size)
    need_free(folder / "last.pt", config.resume)
    space = space_of(config)
    graphs = unlabelled(space, config.archs, config.data, np.random.default_rng([config.seed, 0]))
    decided = by_content(
        fingerprint(config), **spaces.digests(space=space), data=graphs[0].digest() if config.data else "")
    tables = [Batch.of(table).to(worker.device) for table in graphs]
    with console.status("computing the targets of the pretext tasks"):
        targets, target_sizes = target_tables(tables, tasks, space.vocabulary)
    corpus = Corpus(tables, targets, space.shares if isinstance(space, Universal) else [1.0])
    described = {"ops": list(FEATURES)} if isinstance(space, Universal) else {}
    pretext = new_pretext(config, tasks, target_sizes, space).to(worker.device)
    if config.compile:
        compile_encoder(pretext.encoder)
    run = Run(config, decided, about_space(space) | described, pretext, worker)
    if worker.rank:  # the first process writes for all
        if (folder / "last.pt").exists():
            run.restore(folder / "last.pt")
        return follow(run, corpus)
    probe = Probe(config, space, worker.device)
    with exclusive(folder, "--save"):
        need_free(folder / "last.pt", config.resume)  # now that nobody else can begin there
        if (folder / "last.pt").exists():
            run.restore(folder / "last.pt")
        log = Log(folder, config.tensorboard, keep=run.step)
        write_json(folder / "config.json",
                   dataclasses.asdict(config) | {"command": command_of("pretrain.py", config, "save")})
        train(run, corpus, probe, log)
        return conclude(run, folder)


def space_of(config: Config) -> Space | Universal:
    if config.space != Universal.name:
        if config.without:
            raise InputError(f"--without {config.without}: it is for --space {Universal.name}")
        return spaces.get(config.space, config.cell_marks)
    if config.data or config.labels or config.base_model != "transformer" or not config.cell_marks:
        raise InputError(f"--space {Universal.name} takes no --data and no --labels, its model is the "
                         "transformer, and cells are marked: leave these out")
    return Universal(config.without)


def new_pretext(
    config: Config, tasks: tuple[str, ...], target_sizes: dict[str, int], space: Space | Universal
) -> Pretext:
    """Builds the encoder and the heads of its tasks, with initial weights from the seed."""
    masks = MaskSettings(
        config.mask_ratio, config.pretrain_target, config.edge_ratio, config.view_ratio, config.temperature)
    views = ViewSettings(*(getattr(config, name) for name in ViewSettings._fields))
    with seeded(config.seed, 1):
        if isinstance(space, Universal):
            encoder = describe(build_encoder(encoder_config(config), len(FEATURES)), space.vocabulary)
        else:
            encoder = build_encoder(encoder_config(config), len(space.ops))
        return Pretext(encoder, tasks, target_sizes, masks, views)


def compile_encoder(encoder: torch.nn.Module) -> None:
    """Compiles it in place, at the next call; its weights keep their names."""
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
    encoder.compile()


def train(run: Run, corpus: Corpus, probe: Probe, log: Log) -> None:
    """Makes the remaining steps; logs every tenth of the run, and saves then, at the end and every minute."""
    config, folder = run.config, log.path.parent
    began, saved = time.time() - run.seconds, time.time()
    run.pretext.train()
    with progress_bar() as bar, seeded(config.seed, 3):
        if run.rng:
            set_rng_state(run.rng)
        space = run.about["space"]
        line = bar.add_task(f"pretrain {space}", total=config.iterations, completed=run.step)
        while run.step < config.iterations:
            parts = run.advance(corpus)
            if not math.isfinite(run.losses[-1]):
                raise InputError(f"pre-training diverged at step {run.step} (the loss is {run.losses[-1]}): "
                                 f"lower --lr; {folder / 'last.pt'}, if it exists, is from an earlier step")
            said = f"pretrain {space} loss {np.mean(run.losses[-50:]):.4f}"
            bar.update(line, advance=1, description=said)
            due = run.step % run.tenth == 0 or run.step == config.iterations
            if due:
                extra = probe.measure(run.pretext.encoder)
                if extra:
                    report_to_sweep(config.param, extra["probe_tau"], final=run.step == config.iterations)
                extra |= {f"loss_{name}": part.item() for name, part in parts.items()}
                log.write(run.step, loss=run.loss, lr=run.optimiser.param_groups[0]["lr"], **extra)
            if due or time.time() - saved > SAVE_SECONDS:
                run.seconds = time.time() - began
                run.save(folder / "last.pt")
                saved = time.time()
    log.close()


def follow(run: Run, corpus: Corpus) -> float:
    """Makes the same steps as the process that writes; returns the mean loss of the last tenth."""
    run.pretext.train()
    with seeded(run.config.seed, 3, run.rank):
        while run.step < run.config.iterations:
            run.advance(corpus)
    return run.loss


def conclude(run: Run, folder: Path) -> float:
    """Writes result.json and --export, if given; returns the mean loss of the last tenth."""
    config = run.config
    if config.export:
        save_checkpoint(path_of(config.export), **run.bare_encoder())
    space = run.about["space"]
    write_json(folder / "result.json", {"space": space, "steps": config.iterations, "loss": run.loss,
                                        "seconds": round(run.seconds, 1)})
    output.print(
        f"{space}: {config.iterations} steps, loss {run.loss:.4f}; written: {folder / 'last.pt'}")
    return run.loss


class Probe:
    """Fine-tunes a copy of the encoder on a few labels, to show how pre-training goes; chooses nothing."""

    CELLS = 2000  # cells evaluated, at most: a probe is a look, not a result

    def __init__(self, config: Config, space, device: torch.device):
        self.space, self.labels = space, None
        if not config.labels:
            return
        self.labels = read_labels(config.labels, space, config.dataset, metric=metric_of(config))
        self.recipe = PredictorRecipe(finetune_batch_size=config.finetune_batch_size,
                                      finetune_fixed_encoder=config.finetune_fixed_encoder)
        self.encoder = encoder_config(config)
        self.protocol = config.protocol or space.protocol
        self.split = split(self.labels, self.protocol, config.finetune_train_samples, config.seed)
        seen = np.random.default_rng([config.seed, 5]).permutation(self.split.evaluation)[: self.CELLS]  # [E]
        self.n = len(self.split.train)
        rows = np.concatenate([self.split.train, seen])  # [n + E]
        self.table = Batch.of(space.encode_keys([self.labels.keys[row] for row in rows])).to(device)
        self.train_label = self.labels.utility(RANKING_PROTOCOLS[self.protocol].train)[
            self.split.train]  # [n]
        self.truth = self.labels.utility(self.split.target)[seen]  # [E]

    def measure(self, encoder: torch.nn.Module) -> dict:
        """{"probe_tau": tau} of a predictor fitted from the encoder's current weights; {} without labels."""
        if self.labels is None:
            return {}
        checkpoint = {"encoder": self.encoder, "weights": encoder.state_dict()}
        networks = new_networks(self.recipe, len(self.space.ops), checkpoint, [0])
        examples = Examples(self.table, np.arange(self.n)[None], self.train_label[None], [0])
        ensemble = fit_ensemble(self.recipe, networks, examples)
        scores = score_ensemble(ensemble, self.table, np.arange(self.n, self.table.num_graphs))[0]  # [E]
        return {"probe_tau": kendall_tau(scores, self.truth)}


if __name__ == "__main__":
    main_guard(main)
