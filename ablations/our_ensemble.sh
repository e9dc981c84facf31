#!/usr/bin/env bash
# The number of networks in our predictor, with a Gaussian process (kernel regression) for a fifth of its
# score and without.
#
#   LABELS=nasbench101.csv.gz bash ablations/our_ensemble.sh         -h lists the settings

source "$(dirname "$0")/common.sh"
ours101 "$(at_scale 100 100,424)"
ablation "Networks and kernel regression of our predictor" <<'GRID'
setting       | paper | pretrain.py | finetune.py
5, kernel .2  |       |             | --members 5  --kernel_share 0.2
1             |       |             | --members 1  --kernel_share 0
2             |       |             | --members 2  --kernel_share 0
3             |       |             | --members 3  --kernel_share 0
5             |       |             | --members 5  --kernel_share 0
10            |       |             | --members 10 --kernel_share 0
1, kernel .2  |       |             | --members 1  --kernel_share 0.2
2, kernel .2  |       |             | --members 2  --kernel_share 0.2
3, kernel .2  |       |             | --members 3  --kernel_share 0.2
10, kernel .2 |       |             | --members 10 --kernel_share 0.2
GRID
