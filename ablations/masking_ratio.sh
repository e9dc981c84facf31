#!/usr/bin/env bash
# The share of masked operations in a cell, with the paper's GAT and its encoder frozen. A mask hides an exact
# number, at least one, so 5 % and 15 % of at most 7 vertices are the same here; the paper's masks vary.
#
#   LABELS=nasbench101.csv.gz bash ablations/masking_ratio.sh        -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 423
ablation "Share of the operations that is masked (the paper's GAT, frozen)" <<'GRID'
setting | paper at 423 | pretrain.py       | finetune.py
5 %     | .601         | --mask_ratio 0.05 |
15 %    | .613         | --mask_ratio 0.15 |
25 %    | .643         | --mask_ratio 0.25 |
50 %    | .687         | --mask_ratio 0.5  |
75 %    | .691         | --mask_ratio 0.75 |
GRID
