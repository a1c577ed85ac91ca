#!/usr/bin/env bash
# COCO text-to-image, cross-entropy stage.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/image_gen_stage1.yaml "$@"
