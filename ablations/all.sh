#!/usr/bin/env bash
# Every ablation at once: shared settings are computed once, and each table is printed as soon as it is done.
#
#   LABELS=nasbench101.csv.gz LABELS301=nasbench301_yahpo.onnx bash ablations/all.sh     -h lists the settings

source "$(dirname "$0")/common.sh"
LABELS=${LABELS:+$(absolute "$LABELS")} LABELS301=${LABELS301:+$(absolute "$LABELS301")}
print() { PRINT=1 LABELS=$1 bash "ablations/$2.sh" || exit 2; }
GRIDS=$(
    for name in pretrain_task masking_ratio pretrain_target encoder_decoder finetune_target finetune_mode \
                our_pretext our_ensemble direction; do
        print "$LABELS" "$name"
    done
    for name in finetune_mode_301 cell_marks; do
        print "$LABELS301" "$name"
    done
)
if [ -n "${PRINT:-}" ]; then echo "$GRIDS"; else run_grids <<<"$GRIDS"; fi
