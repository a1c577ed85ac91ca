#!/usr/bin/env bash
# ActivityNet captions on ground-truth segments: video_caption_activitynet.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/video_caption_activitynet.yaml "${@:2}"
