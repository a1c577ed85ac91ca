#!/usr/bin/env bash
# VQAv2, the reserved questions of val: vqa_v2_val.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/vqa_v2_val.yaml "${@:2}"
