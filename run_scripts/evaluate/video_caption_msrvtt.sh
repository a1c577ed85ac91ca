#!/usr/bin/env bash
# MSRVTT captioning, test: video_caption_msrvtt.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/video_caption_msrvtt.yaml "${@:2}"
