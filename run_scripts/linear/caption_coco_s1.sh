#!/usr/bin/env bash
# COCO captioning, projections only, from stage 1. Expected CIDEr 129.8.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/caption_coco_s1.yaml "$@"
