#!/usr/bin/env bash
# One launcher for one CPU, one GPU, one node and SLURM.
#   bash run_scripts/_launch.sh VERB ARGUMENTS...        (for example: train configs/finetune/vqa_v2.yaml)
# GPUS: processes on this node (default: the visible GPUs, at least one).
# Under SLURM (sbatch or salloc) every node of the allocation starts its processes; MASTER_PORT may be set.
# DRY_RUN=1 prints the command instead of running it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export TOKENIZERS_PARALLELISM=false
gpus="${GPUS:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}"
[ "$gpus" -ge 1 ] || gpus=1
torchrun=("$python" -m torch.distributed.run --nproc_per_node "$gpus")
if [ "${SLURM_NNODES:-1}" -gt 1 ]; then
  head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
  # A pre-empted job is put back into the queue and goes on from its last checkpoint.
  trap '[ -n "${SLURM_JOB_ID:-}" ] && scontrol requeue "$SLURM_JOB_ID"' USR1
  command=(srun --kill-on-bad-exit=1 --ntasks-per-node=1 "${torchrun[@]}" --nnodes "$SLURM_NNODES"
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$head:${MASTER_PORT:-29500}" -m unival "$@")
elif [ "$gpus" -gt 1 ]; then
  command=("${torchrun[@]}" --standalone -m unival "$@")
else
  command=("$python" -m unival "$@")
fi
if [ "${DRY_RUN:-0}" = 1 ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
"${command[@]}" &
child=$!
wait "$child" || { code=$?; wait "$child" 2>/dev/null || code=$?; exit "$code"; }
