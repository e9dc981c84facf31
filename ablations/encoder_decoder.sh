#!/usr/bin/env bash
# The network of the encoder, each with the paper's settings and frozen. The transformer is ours: its
# attention sees the distance of two vertices, its readout the outputs. Without direction it is closest to the
# paper's.
#
#   LABELS=nasbench101.csv.gz bash ablations/encoder_decoder.sh      -h lists the settings

source "$(dirname "$0")/common.sh"
paper101 423
ablation "Network of the encoder (the paper's settings, frozen)" <<'GRID'
setting                       | paper at 423 | pretrain.py                             | finetune.py
GAT                           | .681         | --base_model gat                        | --base_model gat
GCN                           | .664         | --base_model gcn                        | --base_model gcn
transformer without direction | .613         | --base_model transformer --no-direction | --base_model transformer
transformer                   |              | --base_model transformer                | --base_model transformer
GRID
