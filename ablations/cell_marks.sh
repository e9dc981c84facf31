#!/usr/bin/env bash
# The value of marking the vertices of a DARTS cell as normal or reduction; without marks, the two cells could
# be swapped.
#
#   LABELS=nasbench301_yahpo.onnx bash ablations/cell_marks.sh      the YAHPO surrogate; -h lists the settings

source "$(dirname "$0")/common.sh"
ours301 100,500
ablation "Marks of the two cells of NAS-Bench-301 (our encoder)" <<'GRID'
setting                | paper | pretrain.py     | finetune.py
marked                 |       |                 |
unmarked               |       | --no-cell_marks | --no-cell_marks
marked, from scratch   |       | -               |
unmarked, from scratch |       | -               | --no-cell_marks
GRID
