#!/usr/bin/env bash
# COCO captioning, Karpathy test, as models of ratatouille are scored: caption_coco_ratatouille.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/caption_coco_ratatouille.yaml "${@:2}"
