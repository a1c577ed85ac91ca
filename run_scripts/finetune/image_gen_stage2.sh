#!/usr/bin/env bash
# COCO text-to-image, CLIP reward, from the best checkpoint of stage 1.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/image_gen_stage2.yaml "$@"
