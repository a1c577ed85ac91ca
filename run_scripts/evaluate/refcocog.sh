#!/usr/bin/env bash
# RefCOCOg (UMD split), Acc@0.5: refcocog.sh CHECKPOINT [--any-option value]
set -euo pipefail
for split in val test; do
  bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
    "${UNIVAL_DATA:-userdata}/ofa/refcocog_data/refcocog_$split.tsv" --recipe configs/evaluate/refcocog.yaml "${@:2}"
done
