#!/usr/bin/env bash
# nocaps validation and its domains, zero-shot: caption_nocaps.sh CHECKPOINT [--any-option value]
set -euo pipefail
for split in "" indomain_ neardomain_ outdomain_; do
  bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
    "${UNIVAL_DATA:-userdata}/ofa/caption_data/nocaps_${split}val.tsv" --recipe configs/evaluate/caption_nocaps.yaml "${@:2}"
done
