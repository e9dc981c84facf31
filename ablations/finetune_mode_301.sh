#!/usr/bin/env bash
# Fine-tuning of the paper's GAT on NAS-Bench-301: end to end, from scratch, or its head alone. The paper's
# numbers are for xgb_v1.0 with noise; the labels used here are named below the table.
#
#   LABELS=nasbench301_yahpo.onnx bash ablations/finetune_mode_301.sh   the YAHPO surrogate; -h lists settings

source "$(dirname "$0")/common.sh"
paper301 100,200,500,1000
ablation "Fine-tuning mode on NAS-Bench-301 (the paper's GAT)" <<'GRID'
setting    | paper at 100 200 500 1000 | pretrain.py | finetune.py
end-to-end | .599 .630 .653 .657       |             | --param local:params/end2end_finetune_nasbench301.json
scratch    |                           | -           | --param local:params/train_nasbench301.json
frozen     |                           |             | --param local:params/partial_finetune_nasbench301.json
GRID
