"""Search hyper-parameters of pre-training, fine-tuning or training from scratch on NAS-Bench-101 with NNI.

    python nni4nasbench101.py --stage finetune --labels nasbench_only108.tfrecord --trials 20 --concurrency 2
    python nni4nasbench101.py --stage train --space nasbench201 -- --finetune_train_samples 156 --epochs 60
    python nni4nasbench101.py --stage train -- --param local:params/train_nasbench101.json  # the paper's GAT

NAS-Bench-201, for which the paper gives no settings, is swept with the same tables.
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
        "lr": log_uniform(3e-4, 1e-2),
        "weight_decay": choice(0.0, 1e-3, 1e-2, 1e-1),
        "batch_size": choice(256, 512, 1024),
        "width": choice(32, 64, 96),
        "layers": choice(3, 4, 6),
        "dropout": choice(0.0, 0.1, 0.2, 0.3),
        "tasks": choice("mask", "mask,flow,signature,properties", "mask,flow,signature,properties,contrast"),
        "mask_ratio": choice(0.25, 0.5, 0.75),  # of at most 7 vertices; the paper chose .75
        "view_ratio": choice(0.15, 0.25, 0.4),
        "temperature": log_uniform(0.05, 0.5),
    },
    "finetune": {
        "lr_encoder": log_uniform(3e-4, 1e-2),
        "lr_predictor": log_uniform(3e-4, 1e-2),
        "weight_decay": choice(0.0, 1e-4, 1e-3, 1e-2, 1e-1),
        "gentle_below": choice(0, 200),
        "warmup": choice(0.0, 0.1, 0.3),
        "epochs": choice(40, 80, 120),
        "finetune_batch_size": choice(10, 32, 64),
        "dropout": choice(0.0, 0.1, 0.2, 0.3),
        "predictor_dropout": choice(0.0, 0.1, 0.3),
        "loss": choice("soft_bce", "bpr", "hinge"),
        "child_tuning_mode": choice("F", "D"),
        "child_tuning_p": choice(0.5, 0.8, 1.0),
        "kernel_share": uniform(0.0, 0.4),
    },
    "train": {
        "lr_encoder": log_uniform(5e-4, 2e-2),
        "lr_predictor": log_uniform(5e-4, 2e-2),
        "weight_decay": choice(0.0, 1e-4, 1e-3, 1e-2, 1e-1),
        "epochs": choice(50, 75, 100, 150),
        "finetune_batch_size": choice(10, 32, 64),
        "width": choice(32, 64, 96),
        "layers": choice(2, 4, 6),
        "dropout": choice(0.0, 0.1, 0.2, 0.3),
        "predictor_dropout": choice(0.0, 0.2, 0.4),
        "loss": choice("soft_bce", "bpr", "hinge"),
        "hinge_margin": choice(0.01, 0.1, 0.5),  # for the hinge loss alone
        "kernel_share": uniform(0.0, 0.4),
    },
}


@dataclass
class Config(SweepConfig):
    space: str = setting("nasbench101", "search space", ("nasbench101", "nasbench201"))


main = partial(run_sweep, Config, TABLES, __doc__)

if __name__ == "__main__":
    main_guard(main)
