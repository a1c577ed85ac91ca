#!/usr/bin/env bash
# MSRVTT-QA with a closed list of answers. Expected accuracy 43.48.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_vqa_msrvtt.yaml "$@"
