#!/usr/bin/env bash
# VQAv2, the whole of val (unival data prepare vqa --train-on train): vqa_v2_fullval.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/vqa_v2_fullval.yaml "${@:2}"
