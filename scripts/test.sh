#!/usr/bin/env bash
# The test command: makes .venv when there is none, installs, lints, type-checks, runs the suite.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh train parquet wandb imagegen demo dev
# two test processes of one thread each; tests of one file share their fixtures
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
