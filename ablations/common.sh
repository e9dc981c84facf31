# Sourced by the scripts beside it. Each is one ablation, a grid with one setting per line:
#
#   setting | paper at 423 | pretrain.py       | finetune.py
#   5 %     | .601         | --mask_ratio 0.05 |
#
# A setting adds its flags to those of paper101, paper301, ours101 or ours301 below; - = not pre-trained. You
# may change, add or remove lines: only new settings are run, and a killed run continues where it stopped.
# Settings, from the environment:
#
#   SCALE    cpu (default): the paper's GAT in 1,000 steps of 512 cells, ours as shipped, 20,001 cells of
#            NAS-Bench-101 and 5,000 of 301, seeds 0-4; paper: the published budgets, all cells, all sizes,
#            seeds 0-9; tiny: a rehearsal of seconds, with meaningless numbers
#   LABELS   NAS-Bench-101: a label table; 301: a label table or a surrogate; default: the downloads in DATA
#   DATA     folder of the downloads, default ~/datasets
#   OUT      folder of the runs, default runs/ablations/SCALE; scripts with the same OUT share common settings
#   SEEDS    fine-tuning seeds, like 0-4
#   CELLS    number of cells used;  SIZES: numbers of labels, like 100,424
#   DEVICE   auto, cpu, cuda ...
#   JOBS     settings at a time (default: 2 at SCALE=cpu, else 1);  THREADS: CPU threads of each
#   FIG      folder of the picture, default figs, or OUT at SCALE=tiny
#   RESULTS  folder of the record, default results, or OUT at SCALE=tiny
#   PRINT=1  print the grid as `python -m ablations.run` reads it, and stop
set -euo pipefail
HERE=$PWD NAME=$(basename "$0" .sh)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
case "${1:-}" in -h|--help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "ablations/$NAME.sh"
    sed -n '1,/^set/s/^# \{0,1\}//p' ablations/common.sh
    exit 0;;
esac

DATA=${DATA:-~/datasets} SCALE=${SCALE:-cpu} FEW_STEPS="" FEW_STEPS_OURS="" FEW_EPOCHS=""
OUT=$(absolute "${OUT:-$PWD/runs/ablations/$SCALE}")
case "$SCALE" in
    tiny)
        SEEDS=${SEEDS:-0-1} SIZES=${SIZES:-20} CELLS=${CELLS:-80} FIG=${FIG:-$OUT} RESULTS=${RESULTS:-$OUT}
        FEW_STEPS="--iterations 2 --batch_size 16 --archs 100 --width 8 --layers 1 --heads 2"
        FEW_STEPS_OURS=$FEW_STEPS
        FEW_EPOCHS="--epochs 1 --width 8 --layers 1 --heads 2";;
    cpu) SEEDS=${SEEDS:-0-4} JOBS=${JOBS:-2} FEW_STEPS="--iterations 1000 --batch_size 512";;
    paper) SEEDS=${SEEDS:-0-9};;
    *) echo "error: SCALE=$SCALE: choose tiny, cpu or paper" >&2; exit 2;;
esac

# at_scale CPU PAPER: prints the one for this SCALE.
at_scale() { if [ "$SCALE" = paper ]; then echo "$2"; else echo "$1"; fi; }

# The shared part of a grid: flags, and the numbers of labels (SIZES; tiny: 20).
paper101() {  # SIZES: the paper's GAT and settings on NAS-Bench-101, frozen unless a setting says otherwise
    on101 "$1"
    PRETRAIN="--space nasbench101 --param local:params/pretrain_nasbench101.json $FEW_STEPS"
    FINETUNE="--space nasbench101 --protocol gmae --param local:params/partial_finetune_nasbench101.json"
    FINETUNE+=" $PAPERS_NETWORK"
}
paper301() {  # SIZES: the same on NAS-Bench-301
    on301 "$1"
    PRETRAIN="--space nasbench301 --param local:params/pretrain_nasbench301.json $FEW_STEPS"
    FINETUNE="--space nasbench301 --param local:params/partial_finetune_nasbench301.json $PAPERS_NETWORK"
}
ours101() {  # SIZES: our encoder and settings on NAS-Bench-101
    on101 "$1"
    PRETRAIN="--space nasbench101 $FEW_STEPS_OURS"
    FINETUNE="--space nasbench101 --protocol tnasp $OUR_NETWORKS"
}
ours301() {  # SIZES: the same on NAS-Bench-301
    on301 "$1"
    PRETRAIN="--space nasbench301 $FEW_STEPS_OURS" FINETUNE="--space nasbench301 $OUR_NETWORKS"
}
PAPERS_NETWORK="--finetune_batch_size {tenth} --members 1 --kernel_share 0 $FEW_EPOCHS"  # single networks
OUR_NETWORKS="--members 2 --kernel_share 0 $FEW_EPOCHS"  # networks alone; two have less noise than one
on101() {
    SIZES=${SIZES:-$1} CELLS=${CELLS:-$(at_scale 20001 0)} LABELS=${LABELS:-$DATA/nasbench_only108.tfrecord}
    need_labels "python -m spaces.download nasbench101 fetches them to ~/datasets"
}
on301() {
    SIZES=${SIZES:-$1} CELLS=${CELLS:-$(at_scale 5000 60000)}
    LABELS=${LABELS:-$DATA/nasbench301_models_v1.0/nb_models/xgb_v1.0}
    need_labels "python -m spaces.download nasbench301 fetches it to ~/datasets"
}

# ablation TITLE < GRID: runs it, or prints it.
ablation() {
    {
        printf '%s: %s\n' name "$NAME" title "$1" sizes "$SIZES" labels "$LABELS" cells "$CELLS" \
            pretrain "$PRETRAIN" finetune "$FINETUNE"
        cat
        echo
    } | if [ -n "${PRINT:-}" ]; then cat; else run_grids; fi
}

# run_grids < GRIDS: runs them; each ends with its table, record and picture.
run_grids() {
    make_environment </dev/null
    export OMP_WAIT_POLICY=passive  # threads that spin while waiting are slow beside other work
    .venv/bin/python -m ablations.run --out "$OUT" --seeds "$SEEDS" --scale "$SCALE" --jobs "${JOBS:-1}" \
        --device "${DEVICE:-auto}" --threads "${THREADS:-0}" \
        --figs "$(absolute "${FIG:-$PWD/figs}")" --results "$(absolute "${RESULTS:-$PWD/results}")"
}
