#!/usr/bin/env bash
# VizWiz validation, zero-shot: vqa_vizwiz.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/vqa_vizwiz.yaml "${@:2}"
