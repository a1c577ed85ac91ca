#!/usr/bin/env bash
# VQAv2 test, whose answers EvalAI scores (docs/experiments.md): vqa_v2.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/vqa_v2.yaml "${@:2}"
