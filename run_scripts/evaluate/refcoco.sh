#!/usr/bin/env bash
# RefCOCO, Acc@0.5: refcoco.sh CHECKPOINT [--any-option value]
set -euo pipefail
for split in val testA testB; do
  bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
    "${UNIVAL_DATA:-userdata}/ofa/refcoco_data/refcoco_$split.tsv" --recipe configs/evaluate/refcoco.yaml "${@:2}"
done
