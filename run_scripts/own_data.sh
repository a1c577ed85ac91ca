#!/usr/bin/env bash
# The quickstart's path on small real data sets (configs/own_data): vocabulary, two-stage pretraining, finetuning,
# test scores beside trivial baselines, report. UNIVAL_DATA holds the folders flickr8k_small, easy_vqa_small,
# easy_vqa_video, grid_s1 and esc10. Stop it at any time and run it again: it goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export UNIVAL_DATA="${UNIVAL_DATA:-$PWD/userdata}" UNIVAL_OUT="${UNIVAL_OUT:-$PWD/out}"
export TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
unival=("$python" -m unival)
data="$UNIVAL_DATA" out="$UNIVAL_OUT/own_data"
mkdir -p "$out"

[ -e "$out/vocabulary/dict.txt" ] || "${unival[@]}" data vocabulary --out "$out/vocabulary" --size 4000 --num-codes 0 --num-bins 100 \
  --train-on "$data/flickr8k_small/captions.tsv:caption" "$data/flickr8k_small/grounding.tsv:phrase" \
  "$data/flickr8k_small/entailment.tsv:hypothesis" "$data/easy_vqa_small/questions.tsv:question" \
  "$data/easy_vqa_video/questions.tsv:question" "$data/grid_s1/transcripts.tsv:sentence" "$data/esc10/labels.tsv:label"

train() {
  [ -e "$out/$1.done" ] && return
  echo "== train $1"
  "${unival[@]}" train "configs/own_data/$1.yaml" > "$out/$1.log" 2>&1 || { tail -n 5 "$out/$1.log"; exit 1; }
  grep -E "valid on|done training" "$out/$1.log" | tail -n 2
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
    --train-table "$out/$name/tables/train.eval.table.yaml" --batch-size 64 --out "$out/evaluation/$name" "$@"
}
train stage1
train stage2
for task in ${TASKS:-vqa audio_caption caption entailment grounding video_vqa}; do  # TASKS: a subset
  train "$task"
  evaluate "$task"
done
"${unival[@]}" report "$out/evaluation" --out "$out/report" --title "UnIVAL on small real data sets" \
  --log "stage 1=$out/stage1/train_log.jsonl" --log "stage 2=$out/stage2/train_log.jsonl"
