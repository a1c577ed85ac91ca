#!/usr/bin/env bash
# COCO captioning (Karpathy split), cross-entropy stage. Expected CIDEr 137.0 (README of the reference).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/caption_coco.yaml "$@"
