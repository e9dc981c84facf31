#!/usr/bin/env bash
# Search hyper-parameters of training from scratch on NAS-Bench-301 with NNI; --help lists the flags.
set -euo pipefail
source "$(dirname "$0")/scripts/setup.sh"
in_environment nni4nasbench301.py --stage train "$@"
