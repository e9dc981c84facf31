"""Search hyper-parameters of pre-training, fine-tuning or training from scratch on NAS-Bench-301 with NNI.

    python gen_json_301.py --n 5000 --out cells.jsonl --oracle nasbench301_yahpo.onnx
    python nni4nasbench301.py --stage finetune --labels cells.jsonl --trials 20 --concurrency 2
    python nni4nasbench301.py --stage pretrain --labels cells.jsonl -- --iterations 200

The DARTS space has the same cells and takes the settings found here; sweep it with --space darts only if its
labels differ.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from runtime.errors import main_guard
from runtime.settings import setting
from sweeps.launch import SweepConfig, run_sweep
from sweeps.space import choice, log_uniform, uniform

TABLES = {
    "pretrain": {
        "lr": log_uniform(3e-4, 5e-3),
        "weight_decay": choice(0.0, 1e-2, 1e-1),
        "batch_size": choice(256, 512),
        "layers": choice(3, 4, 5),
        "heads": choice(2, 4, 8),
        "dropout": choice(0.1, 0.2, 0.3),
        "tasks": choice("mask", "mask,flow,properties", "mask,flow,signature,properties,contrast"),
        "mask_ratio": choice(0.05, 0.15, 0.3, 0.5),  # of 22 vertices; the paper chose .05
        "pretrain_target": choice("masked", "all"),
        "archs": choice(20_000, 60_000),
    },
    "finetune": {
        "lr_encoder": log_uniform(5e-4, 8e-3),
        "lr_predictor": log_uniform(5e-4, 8e-3),
        "weight_decay": choice(1e-3, 1e-2, 1e-1),
        "gentle_below": choice(0, 100, 200),
        "epochs": choice(25, 50, 80),  # the paper: 25 from a pre-trained encoder
        "finetune_batch_size": choice(16, 32, 64),
        "dropout": choice(0.0, 0.1, 0.2),
        "predictor_dropout": choice(0.0, 0.25, 0.5),
        "loss": choice("soft_bce", "bpr", "hinge"),
        "hinge_margin": choice(0.01, 0.1),  # for the hinge loss alone
        "child_tuning_p": choice(0.8, 1.0),
        "kernel_share": uniform(0.0, 0.3),
    },
    "train": {
        "lr_encoder": log_uniform(5e-4, 1e-2),
        "lr_predictor": log_uniform(5e-4, 1e-2),
        "weight_decay": choice(1e-4, 1e-3, 1e-2),
        "epochs": choice(40, 75, 110),
        "finetune_batch_size": choice(16, 32, 64),
        "width": choice(32, 64),
        "layers": choice(2, 3, 4),
        "heads": choice(2, 4, 8),
        "dropout": choice(0.0, 0.1, 0.2),
        "predictor_dropout": choice(0.0, 0.1, 0.5),
        "warmup": choice(0.0, 0.1),
        "loss": choice("soft_bce", "bpr"),
        "child_tuning_mode": choice("F", "D"),
        "child_tuning_p": choice(0.5, 0.8, 1.0),
    },
}


@dataclass
class Config(SweepConfig):
    space: str = setting("nasbench301", "search space", ("nasbench301", "darts"))


main = partial(run_sweep, Config, TABLES, __doc__)

if __name__ == "__main__":
    main_guard(main)
