#!/usr/bin/env bash
# Self-critical finetuning of COCO captioning on CIDEr-D.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/caption_coco.yaml "$@"
