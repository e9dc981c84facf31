#!/usr/bin/env bash
# The loss of fine-tuning: pairwise BPR, hinge, or squared error, with the paper's GAT and its encoder frozen.
#
#   LABELS=nasbench101.csv.gz bash ablations/finetune_target.sh      -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 423
ablation "Loss of fine-tuning (the paper's GAT, frozen)" <<'GRID'
setting | paper at 423 | pretrain.py | finetune.py
bpr     | .689         |             | --loss bpr
hinge   | .660         |             | --loss hinge
mse     | .515         |             | --loss mse
GRID
