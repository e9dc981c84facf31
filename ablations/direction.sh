#!/usr/bin/env bash
# The value of telling forward from backward edges, in our encoder.
#
#   LABELS=nasbench101.csv.gz bash ablations/direction.sh            -h lists the settings

source "$(dirname "$0")/common.sh"
ours101 100,424
ablation "Direction of the edges (our encoder)" <<'GRID'
setting                  | paper | pretrain.py    | finetune.py
directed                 |       |                |
undirected               |       | --no-direction | --no-direction
directed, from scratch   |       | -              |
undirected, from scratch |       | -              | --no-direction
GRID
