#!/usr/bin/env bash
# What a GPU does, in under eight minutes: bash benchmarks/gpu.sh [--smoke] [FOLDER]   (default: a new folder in out/)
# Steps of all modalities and of stage 2's mixture beside the bare ResNet-101 and with a profile, generation, a training
# from JPEG files, CUDA graphs, compiled steps; then a table of it all beside its goals. Every part has a time limit, all
# together have one, and what was measured until then counts. The last part, whose compiler takes minutes, may use what
# the others left. --smoke: the same parts with a tiny model on the CPU, which says that the script works, and nothing
# else. PARTS="steps run" leaves out all others. Ends with 0 when every part did.
# Not run on a GPU since the parts were put together: docs/performance.md says what was measured, and where.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
smoke='' scale=1
[ "${1:-}" = --smoke ] && { smoke=1 scale=10; shift; }  # a CPU that others use may be slow
folder="${1:-out/gpu-$(date +%Y%m%d-%H%M%S)}"
mkdir -p "$folder" || exit 2
# a python3 of the machine's own has the packages, and not this project
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
rows="$folder/rows.jsonl"
: > "$rows"
: > "$folder/parts.tsv"
: > "$folder/log.txt"
total=470  # seconds of all parts together
grace=5  # seconds that a part has left when it is asked to end

part() {  # part NAME SECONDS COMMAND...: keep its output, show it, note how it ended
  local name=$1 limit=$2 began=$SECONDS code=0 before left
  [[ " ${PARTS:-$name} " == *" $name "* ]] || return 0
  shift 2
  limit=$((scale * limit)) left=$((scale * total - SECONDS - grace))
  ((limit < left)) || limit=$left
  ((limit > 0)) || limit=1
  printf '\n=== %s (at most %s s)\n' "$name" "$limit" | tee -a "$folder/log.txt"
  before=$(wc -c < "$folder/log.txt")
  # into a file: a process that outlives its part would hold a pipe open, and all wait for it
  timeout -k "$grace" "$limit" "$@" >> "$folder/log.txt" 2>&1 || code=$?
  tail -c "+$((before + 1))" "$folder/log.txt"
  [ "$code" = 0 ] || echo "$name: ended with code $code" | tee -a "$folder/log.txt"
  printf '%s\t%s\t%s\n' "$name" "$((SECONDS - began))" "$code" >> "$folder/parts.tsv"
}

if [ "$smoke" ]; then
  echo "smoke run on a CPU: tiny model and inputs, the figures mean nothing" > "$folder/machine.txt"
  # rows as no other size, or the compiler takes the two for one
  step=(--device cpu --tiny --updates 1) small=5 large=9 recorded=(text) ways=(aot_eager+graphs)
  searches=(--device cpu --tiny --times 2) captions=4
  run=(--arch unival_tiny --pixels 64 --batch 4 --updates 6 --images 8 --rows 64 --workers 1)
  training=(--cpu --bf16 --resnet-type=test_resnet --encoder-layers=1 --decoder-layers=1)
else
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader > "$folder/machine.txt" \
    || { echo "no GPU is visible (--smoke needs none)"; exit 2; }
  nvidia-smi >> "$folder/machine.txt"
  step=(--updates 10) small=32 large=128 recorded=(image) ways=(inductor inductor+graphs)
  searches=() captions=64
  workers=$(($(nproc) > 3 ? $(nproc) - 2 : 1))
  run=(--batch 128 --updates 60 --images 512 --rows 8192 --workers "$workers")
  training=(--bf16)
fi
steps=("$python" benchmarks/training_step.py "${step[@]}" --json "$rows")

# the most valuable first
part steps 100 "${steps[@]}" --only image mixture video audio text --batch "$small" "$large" --floor \
  --profile "$folder/profile.txt" --seconds $((scale * 80))
part generation 35 "$python" benchmarks/captions_per_second.py --batch "$captions" --json "$rows" "${searches[@]}"
part run 80 "$python" benchmarks/training_run.py "${run[@]}" --json "$rows" -- "${training[@]}"
part graphs 105 "${steps[@]}" --only "${recorded[@]}" --batch "$small" --way cudagraphs
part compiled 300 "${steps[@]}" --only image --batch "$small" "$large" --way "${ways[@]}"

printf '\n=== summary\n'
"$python" benchmarks/gpu_summary.py "$folder"
code=$?
echo "results in $folder"
exit "$code"
