#!/usr/bin/env bash
# What a GPU does, in under eight minutes: bash benchmarks/gpu.sh [FOLDER]   (default: a new folder in out/)
# Steps of all modalities at batches 32 and 128, both layouts of the feature maps, a profile, the bare ResNet-101 step as
# the floor of the image step, and a real run with JPEG files. Every part has a time limit, so that a slow one does not
# take the others' time. Not run since the parts were put together: docs/performance.md says what was measured, and where.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
folder="${1:-out/gpu-$(date +%Y%m%d-%H%M%S)}"
mkdir -p "$folder"
nvidia-smi > "$folder/machine.txt" || { echo "no GPU is visible"; exit 2; }
part() {  # part NAME SECONDS COMMAND...
  local name=$1 limit=$2; shift 2
  printf '\n=== %s\n' "$name"
  timeout "$limit" "$@" 2>&1 | tee "$folder/$name.txt" || echo "$name: ended with code ${PIPESTATUS[0]}"
}
part steps 150 "$python" benchmarks/training_step.py --batch 32 128 --updates 10
part layouts 60 "$python" benchmarks/training_step.py --only image audio --batch 128 --layout channels_last contiguous
part profile 45 "$python" benchmarks/training_step.py --only image --batch 128 --updates 5 --profile
part floor 45 "$python" - << 'PYTHON'
import statistics, time, timm, torch
for batch in (32, 128):
    network = timm.create_model("resnet101").cuda().bfloat16().to(memory_format=torch.channels_last).train()
    pictures = torch.randn(batch, 3, 384, 384, device="cuda", dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(12):
        torch.cuda.synchronize(); start = time.perf_counter()
        network(pictures).float().sum().backward(); network.zero_grad(set_to_none=True)
        torch.cuda.synchronize(); times.append(time.perf_counter() - start)
    print(f"bare ResNet-101, batch {batch}: {statistics.median(times[4:]) * 1e3:.1f} ms")
PYTHON
part run 150 "$python" benchmarks/training_run.py --batch 128 --workers 14 -- --bf16
echo "results in $folder"
