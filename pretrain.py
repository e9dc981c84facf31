"""Pre-train a graph encoder on unlabelled architectures.

    python pretrain.py --space nasbench201 --save runs/pretrain/nasbench201
    python pretrain.py --space nasbench101 --save runs/pretrain/gat101 --param local:params/pretrain_nasbench101.json
    python pretrain.py --space nasbench201 --save runs/pretrain/graphcl --model_type graphcl

Writes last.pt (the encoder; also what --resume goes on from), config.json, log.jsonl and TensorBoard curves to --save.
"""
from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import finetune
import runtime
import spaces
from models import ENCODERS, build_encoder
from models.batch import Batch
from models.contrastive import Viewing
from models.metrics import kendall_tau
from models.pretext import MODEL_TYPES, TASKS, Hiding, Pretext, target_table, total
from runtime import setting
from spaces import InputError, labels as label_tables
from spaces.protocols import PROTOCOLS, split


@dataclass
class Config:
    space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    save: str = setting("runs/pretrain/default", "folder for last.pt, config.json, log.jsonl and TensorBoard curves")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    base_model: str = setting("transformer", "encoder", tuple(ENCODERS))
    width: int = setting(64, "width D of the encoder", within=(1, 4096))
    layers: int = setting(4, "layers of the encoder", within=(1, 100))
    heads: int = setting(4, "attention heads of the encoder", within=(1, 64))
    direction: bool = setting(True, "transformer: tell forward from backward (off = an ablation)")
    dropout: float = setting(0.2, "dropout of the encoder", within=(0, 0.95))
    tasks: str = setting("mask,flow,signature,properties,contrast",
                         f"pretext tasks, a comma list of {', '.join(TASKS)} (models/pretext.py)")
    model_type: str = setting("", "one task in place of --tasks, by the name that the paper's code has for it (mae = mask)",
                              ("", *MODEL_TYPES))
    mask_ratio: float = setting(0.5, "share of a graph's vertices whose operation is masked: max(1, round(ratio n)) of n",
                                within=(0, 1))
    pretrain_target: str = setting("masked", "vertices that the loss looks at", ("masked", "all"))
    edge_ratio: float = setting(0.3, "task edges: share of the pairs of vertices that are hidden", within=(0, 1))
    view_ratio: float = setting(0.25, "task contrast: share of the vertices whose operation a view hides", within=(0, 1))
    temperature: float = setting(0.2, "tasks contrast, graphcl, grace: of the softmax; GRACE's authors: 0.4 to 0.9",
                                 within=(0.01, 10))
    edge_drop: float = setting(0.2, "tasks graphcl, bgrl, grace, barlow_twins: probability that a view drops an edge",
                               within=(0, 1))
    feature_mask: float = setting(0.2, "the same tasks: share of the vocabulary that a view masks, all vertices with it "
                                       "(graphcl: share of the vertices)", within=(0, 1))
    node_drop: float = setting(0.2, "task graphcl: share of a graph's vertices that a view drops", within=(0, 0.5))
    teleport: float = setting(0.2, "task mvgrl: teleport probability of the PageRank diffusion; lower spreads further",
                              within=(0.01, 0.99))
    target_momentum: float = setting(0.99, "task bgrl: momentum of the target encoder at the first step; it rises to 1",
                                     within=(0, 1))
    batch_size: int = setting(512, "graphs a step", within=(1, math.inf))
    iterations: int = setting(600, "steps", within=(1, math.inf))
    lr: float = setting(2e-3, "peak learning rate (AdamW, cosine after warm-up)", within=(0, math.inf))
    weight_decay: float = setting(1e-2, "AdamW weight decay", within=(0, math.inf))
    warmup: float = setting(0.05, "share of the steps in which the learning rate rises", within=(0, 1))
    archs: int = setting(60_000, "architectures to train on, drawn uniformly from a larger space; 0 = the whole space",
                          within=(0, math.inf))
    data: str = setting("", "train on the architectures of this file (gen_json_301.py) instead")
    cell_marks: bool = setting(True, "DARTS spaces: tell the normal from the reduction cell (off = the paper's graph)")
    seed: int = setting(0, "seed of weights, architectures, batches and masks", within=(0, math.inf))
    resume: bool = setting(False, "go on from last.pt in --save")
    labels: str = setting("", "label table for a small fine-tuning probe every tenth of the run; it is logged and "
                            "chooses nothing here (in a sweep the last one is the trial's result)")
    dataset: str = setting("cifar10", "dataset of a label table with several", ("cifar10", "cifar100", "ImageNet16-120"))
    protocol: str = setting("", "protocol of the probe; empty = by space", ("", *PROTOCOLS))
    finetune_train_samples: int = setting(100, "labels of the probe", within=(2, math.inf))
    finetune_batch_size: int = setting(0, "labels a step of the probe; 0 = 64", within=(0, math.inf))
    finetune_fixed_encoder: bool = setting(False, "freeze the encoder in the probe")
    export: str = setting("", "at the end also write the bare encoder (no optimiser, no heads) to this file, to pass on")
    tensorboard: bool = setting(True, "write TensorBoard curves")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice")


def main(argv: list[str] | None = None) -> float:
    """Returns the mean loss of the last tenth of the run."""
    config = runtime.parse(Config, argv, __doc__)
    device = runtime.choose_device(config.device, config.threads)
    tasks = (MODEL_TYPES[config.model_type],) if config.model_type else parse_tasks(config.tasks)
    folder = Path(config.save).expanduser()
    if config.export and Path(config.export).is_dir():
        raise InputError(f"--export {config.export} is a folder: name a file")
    if (folder / "last.pt").exists() and not config.resume:
        raise InputError(f"{folder} holds a run already: add --resume to go on with it, or give another --save")
    space = spaces.get(config.space, config.cell_marks)
    table = Batch.of(architectures(config, space)).to(device)
    with runtime.console.status("computing the targets of the pretext tasks"):
        target, widths = target_table(table, tasks, space.ops)
    with runtime.seeded(config.seed, 1):
        encoder = build_encoder(runtime.encoder_settings(config), len(space.ops))
        hiding = Hiding(config.mask_ratio, config.pretrain_target, config.edge_ratio, config.view_ratio, config.temperature)
        viewing = Viewing(*(getattr(config, name) for name in Viewing._fields))
        pretext = Pretext(encoder, tasks, widths, hiding, viewing)
    return train(config, space, (table, target), pretext.to(device), Probe(config, space, device), folder)


def architectures(config: Config, space) -> spaces.Graphs:
    """The graphs to train on. Nothing here reads a label."""
    if config.data:
        return space.encode_keys(label_tables.read_architectures(config.data, space))
    if config.archs and (space.size is None or config.archs < space.size):
        return space.table(config.archs, np.random.default_rng([config.seed, 0]))
    return space.table()


def parse_tasks(text: str) -> tuple[str, ...]:
    """'mask,flow' -> ("mask", "flow"), in the order of TASKS."""
    given = text.split(",")
    unknown = [task for task in given if task not in TASKS]
    if unknown or len(set(given)) < len(given):
        raise InputError(f"--tasks {text}: give a comma list of {', '.join(TASKS)}, each at most once")
    return tuple(task for task in TASKS if task in given)


def train(config: Config, space, data: tuple, pretext: Pretext, probe: Probe, folder: Path) -> float:
    """data = (table of N graphs, targets [N, V, T] or None). Returns the mean loss of the last tenth."""
    table, target = data
    device = table.ops.device
    optimiser = torch.optim.AdamW(pretext.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    generator = torch.Generator(device).manual_seed(runtime.mix(config.seed, 2))
    start, losses, seconds, resumed = 0, [], 0.0, None
    if config.resume and (folder / "last.pt").exists():
        resumed = restore(config, folder / "last.pt", pretext, optimiser, generator)
        start, losses, seconds = resumed["step"], resumed["losses"], resumed["seconds"]
    runtime.write_json(folder / "config.json", dataclasses.asdict(config))
    log = runtime.Log(folder, config.tensorboard, keep=start)
    tenth = max(1, config.iterations // 10)
    saved, began = time.time(), time.time() - seconds
    pretext.train()
    with runtime.progress() as bar, runtime.seeded(config.seed, 3):
        if resumed:
            runtime.set_rng_state(resumed["rng"])
        line = bar.add_task(f"pretrain {config.space}", total=config.iterations, completed=start)
        for step in range(start, config.iterations):
            optimiser.param_groups[0]["lr"] = config.lr * finetune.warm_cosine(step / config.iterations, config.warmup)
            index = torch.randint(table.graphs, (config.batch_size,), generator=generator, device=device)  # [B]
            parts = pretext(table.rows(index), None if target is None else target[index].float(), generator)
            loss = total(parts)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(pretext.parameters(), 5.0)
            optimiser.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise InputError(f"pre-training diverged at step {step + 1} (the loss is {losses[-1]}): lower --lr; "
                                 f"what {folder / 'last.pt'} holds, if anything, is from before")
            bar.update(line, advance=1, description=f"pretrain {config.space} loss {np.mean(losses[-50:]):.4f}")
            done = step + 1
            if done % tenth == 0 or done == config.iterations:
                extra = probe.measure(pretext.encoder)
                if extra:
                    runtime.report(config.param, extra["probe_tau"], final=done == config.iterations)
                extra |= {f"loss_{name}": part.item() for name, part in parts.items()}
                log.write(done, loss=float(np.mean(losses[-tenth:])), lr=optimiser.param_groups[0]["lr"], **extra)
            if time.time() - saved > 60 or done == config.iterations or done % tenth == 0:
                state = {"pretext": pretext.state_dict(), "optimiser": optimiser.state_dict(), "step": done,
                         "losses": losses, "seconds": time.time() - began, "generator": generator.get_state()}
                save(folder / "last.pt", config, bare_encoder(config, space, pretext), state)
                saved = time.time()
    log.close()
    final = float(np.mean(losses[-tenth:]))
    if config.export:
        runtime.save_checkpoint(Path(config.export).expanduser(), **bare_encoder(config, space, pretext))
    runtime.write_json(folder / "result.json", {"space": config.space, "steps": config.iterations, "loss": final,
                                                "seconds": round(time.time() - began, 1)})
    runtime.output.print(f"{config.space}: {config.iterations} steps, loss {final:.4f}; written: {folder / 'last.pt'}")
    return final


def save(path: Path, config: Config, encoder: dict, state: dict) -> None:
    """encoder: what it takes to use it elsewhere; state: what it takes to go on."""
    runtime.save_checkpoint(path, **encoder, config=dataclasses.asdict(config), rng=runtime.rng_state(), **state)


def bare_encoder(config: Config, space, pretext: Pretext) -> dict:
    """What it takes to use the encoder elsewhere."""
    return {"space": config.space, "ops": list(space.ops), "encoder": runtime.encoder_settings(config),
            "cell_marks": config.cell_marks,
            "weights": {name: value.cpu() for name, value in pretext.encoder.state_dict().items()}}


def restore(config: Config, path: Path, pretext, optimiser, generator) -> dict:
    """Load last.pt into the running objects; a setting that would change the run's course must be as it was."""
    needs = ("config", "pretext", "optimiser", "step", "losses", "seconds", "generator", "rng")
    content = runtime.load_checkpoint(path, needs)
    free = {"save", "param", "resume", "export", "labels", "dataset", "protocol", "tensorboard", "device", "threads"}
    for name, value in dataclasses.asdict(config).items():
        if name not in free and not name.startswith("finetune_") and content["config"].get(name) != value:
            raise InputError(f"{path} was made with {name} = {content['config'].get(name)!r}, not {value!r}: "
                             "give the same to --resume, or another --save")
    if content["rng"].keys() != runtime.rng_state().keys():
        raise InputError(f"{path} was made on another kind of device: resume it with the same --device")
    pretext.load_state_dict(content["pretext"])
    optimiser.load_state_dict(content["optimiser"])
    generator.set_state(content["generator"])
    return content


class Probe:
    """Fine-tunes a copy of the encoder on a few labels, to see how pre-training goes. Nothing is chosen by it."""

    CELLS = 2000  # evaluated on at most so many: a probe is a look, not a result

    def __init__(self, config: Config, space, device: torch.device):
        self.space, self.labels = space, None
        if not config.labels:
            return
        self.labels = label_tables.read(config.labels, space, config.dataset)
        self.recipe = finetune.Recipe(finetune_batch_size=config.finetune_batch_size,
                                      finetune_fixed_encoder=config.finetune_fixed_encoder)
        self.encoder = runtime.encoder_settings(config)
        self.protocol = config.protocol or space.protocol
        self.split = split(self.labels, self.protocol, config.finetune_train_samples, config.seed)
        seen = np.random.default_rng([config.seed, 5]).permutation(self.split.evaluation)[: self.CELLS]  # [E]
        self.n = len(self.split.train)
        rows = np.concatenate([self.split.train, seen])  # [n + E]
        self.table = Batch.of(space.encode_keys([self.labels.keys[row] for row in rows])).to(device)
        self.train_label = getattr(self.labels, PROTOCOLS[self.protocol].train)[self.split.train]  # [n]
        self.truth = getattr(self.labels, self.split.target)[seen]  # [E]

    def measure(self, encoder: torch.nn.Module) -> dict:
        """{"probe_tau": tau} of a predictor fitted from the encoder's present weights; {} without labels."""
        if self.labels is None:
            return {}
        checkpoint = {"encoder": self.encoder, "weights": encoder.state_dict()}
        predictors = finetune.new_predictors(self.recipe, len(self.space.ops), checkpoint, [0])
        examples = finetune.Examples(self.table, np.arange(self.n)[None], self.train_label[None], [0])
        ensemble = finetune.fit(self.recipe, predictors, examples)
        scores = finetune.score(ensemble, self.table, np.arange(self.n, self.table.graphs))[0]  # [E]
        return {"probe_tau": kendall_tau(scores, self.truth)}


if __name__ == "__main__":
    runtime.main_guard(main)
