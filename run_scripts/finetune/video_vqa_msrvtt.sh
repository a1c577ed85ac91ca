#!/usr/bin/env bash
# MSRVTT-QA with a closed answer list. Expected accuracy 43.5. Script: 35 epochs, batch 8 x 2 x 16 GPUs.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_vqa_msrvtt.yaml "$@"
