#!/usr/bin/env bash
# Merge finetuned weights: bash run_scripts/merge/merge.sh configs/merge/average.yaml
# The actions as well: merge.sh sweep configs/merge/sweep.yaml [--search]; merge.sh fisher ...; merge.sh plot ...
# A chain (merge.sh chain configs/merge/ratatouille.yaml) goes on where it was stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=python3; [ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" -m unival merge "$@"
