#!/usr/bin/env bash
# A chain as SLURM job arrays, one per stage, each waiting for the one before; further words go to sbatch:
#   bash run_scripts/merge/chain_slurm.sh configs/merge/ratatouille.yaml --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
recipe=$1; shift
python=python3; [ -x .venv/bin/python ] && python=.venv/bin/python
after=()
for steps in $("$python" -m unival merge chain "$recipe" --stages); do
  job=$(sbatch --parsable --array="$steps" "${after[@]}" "$@" \
    --wrap "$python -m unival merge chain $recipe --step \$SLURM_ARRAY_TASK_ID")
  echo "steps $steps: job $job"
  after=(--dependency="afterok:${job%%;*}")
done
