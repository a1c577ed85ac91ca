#!/usr/bin/env bash
# The test command: makes .venv when there is none, installs, lints, type-checks, runs the suite.
# Usage: bash scripts/test.sh [fast] [pytest arguments]
#   fast: lint, types, layout, unit and parity tests, for every change; without it everything, as CI runs it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh train parquet wandb imagegen demo docs dev
# three test processes of one thread each on two cores: one of them mostly waits for a program, a signal or a limit; tests
# of one file share their fixtures
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false NO_MKDOCS_2_WARNING=1
# glibc gives freed tensors back to the system, which clears their pages anew: half of the system's time of the suite
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483647
unset PYTHONDONTWRITEBYTECODE  # hundreds of programs would compile our modules again
tests=()
if [ "${1:-}" = fast ]; then
  shift
  tests=(tests/layout tests/unit tests/parity tests/metrics -m "not slow")
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
.venv/bin/mypy > "$log" 2>&1 &
types=$! code=0
# in the order of tests/conftest.py: long files first
.venv/bin/python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder \
  ${tests[@]+"${tests[@]}"} "$@" || code=$?
wait "$types" || code=1
cat "$log"
exit "$code"
