#!/usr/bin/env bash
# MSVD-QA with a closed list of answers. Expected accuracy 49.55.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_vqa_msvd.yaml "$@"
