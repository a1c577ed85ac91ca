#!/usr/bin/env bash
# OK-VQA validation, zero-shot: vqa_okvqa.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/vqa_okvqa.yaml "${@:2}"
