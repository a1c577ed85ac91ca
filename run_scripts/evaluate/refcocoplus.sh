#!/usr/bin/env bash
# RefCOCO+, Acc@0.5: refcocoplus.sh CHECKPOINT [--any-option value]
set -euo pipefail
for split in val testA testB; do
  bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
    "${UNIVAL_DATA:-userdata}/ofa/refcocoplus_data/refcocoplus_$split.tsv" --recipe configs/evaluate/refcocoplus.yaml "${@:2}"
done
