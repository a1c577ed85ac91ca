#!/usr/bin/env bash
# ActivityNet-Captions on ground-truth segments.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_caption_activitynet.yaml "$@"
