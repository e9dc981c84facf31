#!/usr/bin/env bash
# The pre-training task: masked autoencoder or contrastive, with the paper's GAT and its encoder frozen. Also
# an encoder with random weights, and one that is trained from scratch on the labels.
#
#   LABELS=nasbench101.csv.gz bash ablations/pretrain_task.sh        -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 423
ablation "Pre-training task (the paper's GAT, frozen)" <<'GRID'
setting              | paper at 423 | pretrain.py               | finetune.py
mae                  | .674         |                           |
graphcl              | .636         | --model_type graphcl      |
mvgrl                | .599         | --model_type mvgrl        |
bgrl                 |              | --model_type bgrl         |
grace                |              | --model_type grace        |
barlow_twins         |              | --model_type barlow_twins |
random weights       |              | -                         |
trained from scratch |              | -                         | --no-finetune_fixed_encoder
GRID
