#!/usr/bin/env bash
# The same on NAS-Bench-301. The paper's numbers are for xgb_v1.0 with noise; what labels here stands below the table.
#
#   LABELS=nasbench301_yahpo.onnx bash ablations/finetune_mode_301.sh      the YAHPO surrogate; -h lists the settings

source "$(dirname "$0")/common.sh"
paper301 100,200,500,1000
ablation "Fine-tuning mode on NAS-Bench-301 (the paper's GAT)" <<'GRID'
setting    | paper at 100 200 500 1000 | pretrain.py | finetune.py
end-to-end | .599 .630 .653 .657       |             | --param local:params/end2end_finetune_nasbench301.json
scratch    |                           | -           | --param local:params/train_nasbench301.json
frozen     |                           |             | --param local:params/partial_finetune_nasbench301.json
GRID
