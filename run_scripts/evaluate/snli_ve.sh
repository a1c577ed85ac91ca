#!/usr/bin/env bash
# SNLI-VE, accuracy: snli_ve.sh CHECKPOINT [--any-option value]
set -euo pipefail
for split in dev test; do
  bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
    "${UNIVAL_DATA:-userdata}/ofa/snli_ve_data/snli_ve_$split.tsv" --recipe configs/evaluate/snli_ve.yaml "${@:2}"
done
