#!/usr/bin/env bash
# COCO captioning, Karpathy test: caption_coco.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/caption_coco.yaml "${@:2}"
