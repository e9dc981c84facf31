#!/usr/bin/env bash
# Pre-train, fine-tune and search NAS-Bench-101 with every strategy and baseline, under both protocols. Each
# protocol ends with a table and a picture, figs/SEARCH101.png and figs/SEARCH101-oracle-test.png.
#
#   python -m spaces.download nasbench101 && bash search101.sh
#   LABELS=mine.csv.gz SEEDS=0-4 PROTOCOLS=val-test bash search101.sh   any table of part of the space

set -euo pipefail
source "$(dirname "$0")/scripts/search_common.sh"
case "${1:-}" in -h|--help) help search101.sh; exit 0;; esac
LABELS=${LABELS:-$DATA/nasbench_only108.tfrecord} N=${N:-150} PROTOCOLS=${PROTOCOLS:-val-test oracle-test}
need_labels "python -m spaces.download nasbench101 fetches them to ~/datasets"
chain nasbench101 101 cifar10
