#!/usr/bin/env bash
# COCO captioning, projections only, from stage 2. Expected CIDEr 132.7.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/caption_coco_s2.yaml "$@"
