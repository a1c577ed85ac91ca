#!/usr/bin/env bash
# MSRVTT captioning, projections only, from stage 1, which has seen no video. Expected CIDEr 39.8.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/video_caption_msrvtt_s1.yaml "$@"
