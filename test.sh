#!/usr/bin/env bash
# The whole suite on a fresh machine: .venv, requirements, pytest. Arguments go to pytest: bash test.sh -k losses
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
make_environment
export OMP_NUM_THREADS=1 MPLBACKEND=Agg
exec .venv/bin/python -m pytest -q --durations=10 "$@"
