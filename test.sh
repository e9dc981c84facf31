#!/usr/bin/env bash
# Run the whole suite, also on a fresh machine: .venv, requirements, ruff, import-linter, pytest. Arguments go
# to pytest:
#   bash test.sh -k losses        bash test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")"
source scripts/setup.sh
make_environment
export OMP_NUM_THREADS=1 MPLBACKEND=Agg
.venv/bin/ruff check .
PYTHONPATH=$PWD .venv/bin/lint-imports --no-cache --no-logo
exec .venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10 "$@"
