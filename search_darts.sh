#!/usr/bin/env bash
# Search for a DARTS cell by training on CIFAR-10, with both strategies; then train the found cells and, in
# the same way, random cells. Ends with one table and four drawings.
#
#   bash search_darts.sh                                           the paper's sizes, for a GPU: days
#   PROFILE=tiny DATA=cifar10_5k.npz JOBS=2 bash search_darts.sh   a CPU rehearsal: minutes, low accuracies
#
# DATA is an .npz (x_train, y_train, x_test, y_test) or a folder with the official archive (default
# ~/datasets; `python -m spaces.download cifar10` fetches it). Further settings: OUT, DEVICE, JOBS (trainings
# at a time), SEEDS, RANDOM_CELLS; SEARCH_FLAGS and TRAIN_FLAGS are added to the commands. A second run
# continues where the first one stopped.
set -euo pipefail
HERE=$PWD
cd "$(dirname "$0")"
source scripts/setup.sh

case "${1:-}" in -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' search_darts.sh; exit 0;; esac
PROFILE=${PROFILE:-paper} DATA=$(absolute "${DATA:-$HOME/datasets}")
JOBS=${JOBS:-1} RANDOM_CELLS=${RANDOM_CELLS:-3}
OUT=$(absolute "${OUT:-$PWD/runs/search_darts/$PROFILE}")
case "$PROFILE" in
    paper) SEARCH=params/search_darts.json TRAIN=params/train_cifar10.json;;
    tiny) SEARCH=params/search_darts_tiny.json TRAIN=params/train_cifar10_tiny.json;;
    *) echo "error: PROFILE=$PROFILE: choose paper or tiny" >&2; exit 2;;
esac
[[ $RANDOM_CELLS =~ ^[1-9][0-9]*$ ]] || { echo "error: RANDOM_CELLS=$RANDOM_CELLS: 1 or more" >&2; exit 2; }
make_environment
export OMP_WAIT_POLICY=passive  # threads that spin while waiting are slow beside other work
run() { .venv/bin/python "$@" --data "$DATA" --device "${DEVICE:-auto}" --jobs "$JOBS" --resume; }

for algo in ae bo; do
    run search.py --search_space darts --search_algo "$algo" --oracle train \
        --encoder_model_state_dict default --param "local:$SEARCH" --outdir "$OUT/search/$algo" \
        ${SEARCH_FLAGS:-}
done
for algo in ae bo; do
    run train.py --arch "$OUT/search/$algo/best.json" --seeds "${SEEDS:-0-2}" --param "local:$TRAIN" \
        --save "$OUT/train/$algo" ${TRAIN_FLAGS:-}
done
for cell in $(seq 1 "$RANDOM_CELLS"); do
    run train.py --arch "random:$cell" --seeds "${SEEDS:-0-2}" --param "local:$TRAIN" \
        --save "$OUT/train/random$cell" ${TRAIN_FLAGS:-}
done
.venv/bin/python -m benchmarks.search_darts --out "$OUT"
