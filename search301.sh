#!/usr/bin/env bash
# Pre-train, fine-tune and search NAS-Bench-301 with every strategy and baseline; ends with a table and the
# picture figs/SEARCH301.png.
#
#   python -m spaces.download nasbench301 && bash search301.sh   the official surrogate xgb_v1.0
#   LABELS=nasbench301_yahpo.onnx bash search301.sh              the YAHPO surrogate, or a table of labels

set -euo pipefail
source "$(dirname "$0")/scripts/search_common.sh"
case "${1:-}" in -h|--help) help search301.sh; exit 0;; esac
LABELS=${LABELS:-$DATA/nasbench301_models_v1.0/nb_models/xgb_v1.0}
N=${N:-100} PROTOCOLS=${PROTOCOLS:-val-test}
need_labels "python -m spaces.download nasbench301 fetches it to ~/datasets"
chain nasbench301 301 cifar10
