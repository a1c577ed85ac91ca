#!/usr/bin/env bash
# MSVD-QA with a closed answer list, 40 epochs (script and paper), batch 8 x 2 x 16 GPUs.extends: video_vqa_msrvtt.yaml
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_vqa_msvd.yaml "$@"
