#!/usr/bin/env bash
# One launcher for one CPU, one GPU, several processes, several machines and SLURM.
#   bash run_scripts/_launch.sh VERB ARGUMENTS...        (for example: train configs/finetune/vqa_v2.yaml)
# GPUS: processes on this machine (default: the visible GPUs, at least one).
# Several machines: the same command on each with NNODES, NODE_RANK (0 to NNODES - 1), and MASTER_ADDR and
#   MASTER_PORT of machine 0. In a SLURM allocation of several nodes they are filled in, one launcher a node.
# SUBMIT="--nodes=4 --gpus-per-node=8 --time=1-00" submits the command to SLURM. SIGUSR1 (two minutes before the end of
#   time) and SIGTERM make a training save and end with exit code 75; after SIGUSR1 and after pre-emption a SLURM job
#   is then put back into the queue, after scancel it is not.
# DRY_RUN=1 prints the command instead of running it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stopped=75  # unival/launch/stopping.py
one_of_several="${NNODES:-}"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export TOKENIZERS_PARALLELISM=false
gpus="${GPUS:-${SLURM_GPUS_ON_NODE:-}}"
if [ -z "$gpus" ]; then
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    gpus="$(tr ',' '\n' <<< "$CUDA_VISIBLE_DEVICES" | wc -l)"
  else
    gpus="$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)"
  fi
fi
[ "$gpus" -ge 1 ] || gpus=1
if [ -n "${SUBMIT:-}" ]; then
  # exec: the batch shell is this launcher, so that the signal before the end of time reaches it
  job="exec bash $(printf '%q ' "$PWD/run_scripts/_launch.sh" "$@")"
  read -ra asked <<< "$SUBMIT"
  unset SUBMIT
  command=(sbatch --requeue --open-mode=append --signal=B:USR1@120 "${asked[@]}" --wrap "$job")
elif [ -z "$one_of_several" ] && [ "${SLURM_NNODES:-1}" -gt 1 ]; then
  NNODES="$SLURM_NNODES"
  hosts="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
  MASTER_ADDR="${hosts%%$'\n'*}"
  MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"
  export NNODES MASTER_ADDR MASTER_PORT
  command=(srun --nodes="$NNODES" --ntasks="$NNODES" --ntasks-per-node=1 --kill-on-bad-exit=1
    bash "$PWD/run_scripts/_launch.sh" "$@")
elif [ "$gpus" -gt 1 ] || [ "${NNODES:-1}" -gt 1 ]; then
  export GPUS="$gpus"
  command=("$python" -m unival.launch "$@")
else
  command=("$python" -m unival "$@")
fi
if [ "${DRY_RUN:-0}" = 1 ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
# Nothing to do afterwards: signals, Ctrl-C among them, then reach the program and not a shell that waits for it.
[ -n "${SLURM_JOB_ID:-}" ] || exec "${command[@]}"
UNIVAL_PARENT=$$ "${command[@]}" &  # told to save and stop when this shell is killed
child=$! code=0 signals=0 interrupted="" announced=""
trap 'signals=$((signals + 1)); kill -USR1 "$child" 2>/dev/null || true' TERM HUP
trap 'signals=$((signals + 1)) announced=1; kill -USR1 "$child" 2>/dev/null || true' USR1
trap 'signals=$((signals + 1)) interrupted=1; kill -INT "$child" 2>/dev/null || true' INT
while :; do  # a signal ends "wait" early
  seen=$signals status=0
  wait "$child" || status=$?
  [ "$status" -eq 127 ] || code=$status
  [ "$signals" -ne "$seen" ] || break
done
# SIGTERM is also what scancel sends, and a cancelled job must not come back: only one that SLURM makes room with does.
preempted() {  # since it was started last
  local facts at
  facts="$(scontrol show job "$SLURM_JOB_ID" 2> /dev/null)" || return 1
  [[ "$facts" =~ PreemptTime=([0-9][^[:space:]]*) ]] || return 1
  at="${BASH_REMATCH[1]}"
  [[ "$facts" =~ [[:space:]]StartTime=([0-9][^[:space:]]*) && ! "$at" < "${BASH_REMATCH[1]}" ]]
}
# Only the batch shell asks for the requeue, not the launchers that srun started on the nodes.
if [ "$signals" -gt 0 ] && [ "$code" -ge "$stopped" ] && [ -n "${SLURM_JOB_ID:-}" ] &&
  [ -z "$one_of_several$interrupted" ] && { [ -n "$announced" ] || preempted; }; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
