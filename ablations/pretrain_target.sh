#!/usr/bin/env bash
# The operations to reconstruct: only masked ones, or all, with the paper's GAT and its encoder frozen.
#
#   LABELS=nasbench101.csv.gz bash ablations/pretrain_target.sh      -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 423
ablation "Operations to reconstruct (the paper's GAT, frozen)" <<'GRID'
setting | paper at 423 | pretrain.py              | finetune.py
masked  | .674         | --pretrain_target masked |
all     | .621         | --pretrain_target all    |
GRID
