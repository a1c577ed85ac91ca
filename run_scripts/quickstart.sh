#!/usr/bin/env bash
# From nothing to a table of scores and a page of pictures, on two CPU cores, without any download of data
# or weights: sample world, two-stage pretraining, six finetuned tasks, evaluation, merging, report.
# Stop it at any time and run it again: finished steps are skipped, a stopped one goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export UNIVAL_DATA="${UNIVAL_DATA:-$PWD/userdata}" UNIVAL_OUT="${UNIVAL_OUT:-$PWD/out}"
export TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore
unival=(.venv/bin/python -m unival)
world="$UNIVAL_DATA/world" tiny="$UNIVAL_OUT/tiny"
mkdir -p "$tiny"
started=$SECONDS
step() { printf '\n=== %s (%d s so far)\n' "$1" "$((SECONDS - started))"; }

# train NAME [PROCESSES]: full output in out/tiny/NAME.log, the lines worth watching on the terminal
train() {
  [ -e "$tiny/$1.done" ] && { echo "$1: done before"; return; }
  GPUS="${2:-1}" bash run_scripts/_launch.sh train "configs/tiny/$1.yaml" > "$tiny/$1.log" 2>&1 &
  local job=$!
  tail --pid="$job" -n +1 -F "$tiny/$1.log" 2> /dev/null | grep --line-buffered -E "epoch .*(loss|valid)|error" \
    | sed -u -E "s/.*epoch ([0-9]+)[^0-9a-z]*/$1 | epoch \1 /; s/, (nll_loss|ntokens|nsentences|sample_size|clip|train_wall|ups)=[^,]*//g" &
  local watch=$!
  wait "$job" || { tail -n 20 "$tiny/$1.log"; return 1; }
  wait "$watch" 2> /dev/null || true
  touch "$tiny/$1.done"
}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # a core for each process, and two of them all the time
source run_scripts/_two_at_once.sh
# evaluate NAME TABLE [options]
evaluate() {
  local name=$1 table=$2; shift 2
  "${unival[@]}" evaluate "$tiny/$name/checkpoint_best.pt" "$world/tables/${table}_test.tsv" \
    --train-table "$world/tables/${table}_train.tsv" --image-dir "$world" --batch-size 64 \
    --out "$tiny/evaluation/$name" "$@" > "$tiny/evaluate-$name.log" 2>&1 || { tail -n 20 "$tiny/evaluate-$name.log"; return 1; }
  echo "$name: $(grep -m 1 baseline "$tiny/evaluate-$name.log" || tail -n 1 "$tiny/evaluate-$name.log")"
}

step "sample world"
[ -e "$world/world.json" ] || "${unival[@]}" data sample "$world" --images 5000 --clips 1500 --sounds 1200 --questions 5 --num-bins 33
step "stage 1: pretraining on images"
train stage1 2
step "stage 2: videos join"
train stage2 2
step "finetuning: six tasks, two at a time"  # longest first, so that both cores end together
two_at_once train vqa audio_caption video_vqa video_caption grounding caption
step "evaluation on the test splits"
two_at_once evaluate "caption caption" "vqa vqa" "grounding grounding" "video_caption video_caption" \
  "video_vqa video_vqa" "audio_caption audio_caption"
step "merging: weights between the captioning and the question answering model"
"${unival[@]}" merge sweep configs/tiny/merge_sweep.yaml > "$tiny/merge.log" 2>&1 || { tail -n 5 "$tiny/merge.log"; exit 1; }
grep "^|" "$tiny/merge.log"
step "report"
"${unival[@]}" report "$tiny/evaluation" --out "$tiny/report" --title "UnIVAL on the sample world" \
  --figure "merging: scores between two finetuned models=$tiny/merge_sweep/curves.png" \
  --figure "merging: one task against the other=$tiny/merge_sweep/fronts.png" \
  --log "stage 1=$tiny/stage1/train_log.jsonl" --log "stage 2=$tiny/stage2/train_log.jsonl"
echo "done in $((SECONDS - started)) s; open $tiny/report/report.html"
