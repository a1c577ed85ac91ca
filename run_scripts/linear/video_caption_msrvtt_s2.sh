#!/usr/bin/env bash
# MSRVTT captioning, projections only, from stage 2. Expected CIDEr 51.8.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/video_caption_msrvtt_s2.yaml "$@"
