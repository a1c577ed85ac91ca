#!/usr/bin/env bash
# MSRVTT captioning. Expected CIDEr 60.5. Script: 20 epochs, batch 16 x 2 x 8 GPUs; the released script is
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/video_caption_msrvtt.yaml "$@"
