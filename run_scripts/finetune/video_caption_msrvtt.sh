#!/usr/bin/env bash
# MSRVTT captioning.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_caption_msrvtt.yaml "$@"
