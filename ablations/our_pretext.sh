#!/usr/bin/env bash
# The value of each of our pretext tasks: all default tasks, each left out, each alone, and one more (edges).
#
#   LABELS=nasbench101.csv.gz bash ablations/our_pretext.sh          -h lists the settings

source "$(dirname "$0")/common.sh"
ours101 100,424
ablation "Pretext tasks of our encoder" <<'GRID'
setting            | paper | pretrain.py                                           | finetune.py
all five           |       | --tasks mask,flow,signature,properties,contrast       |
without mask       |       | --tasks flow,signature,properties,contrast            |
without flow       |       | --tasks mask,signature,properties,contrast            |
without signature  |       | --tasks mask,flow,properties,contrast                 |
without properties |       | --tasks mask,flow,signature,contrast                  |
without contrast   |       | --tasks mask,flow,signature,properties                |
with edges         |       | --tasks mask,flow,signature,properties,edges,contrast |
mask alone         |       | --tasks mask                                          |
flow alone         |       | --tasks flow                                          |
signature alone    |       | --tasks signature                                     |
properties alone   |       | --tasks properties                                    |
contrast alone     |       | --tasks contrast                                      |
from scratch       |       | -                                                     |
GRID
