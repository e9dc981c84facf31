#!/usr/bin/env bash
# Fine-tuning of the paper's GAT: all of it from the pre-trained weights, all from scratch, or its head alone.
#
#   LABELS=nasbench101.csv.gz bash ablations/finetune_mode.sh        -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 "$(at_scale 423 423,846,2115,4230)"
ablation "Fine-tuning mode (the paper's GAT)" <<'GRID'
setting    | paper at 423 846 2115 4230 | pretrain.py | finetune.py
end-to-end | .739 .756 .771 .778        |             | --param local:params/end2end_finetune_nasbench101.json
scratch    | .736 .755 .777 .786        | -           | --param local:params/train_nasbench101.json
frozen     | .688 .705 .723 .731        |             | --param local:params/partial_finetune_nasbench101.json
GRID
