#!/usr/bin/env bash
# Search hyper-parameters of fine-tuning on NAS-Bench-101 with NNI; --help lists the flags.
set -euo pipefail
source "$(dirname "$0")/scripts/setup.sh"
in_environment nni4nasbench101.py --stage finetune "$@"
