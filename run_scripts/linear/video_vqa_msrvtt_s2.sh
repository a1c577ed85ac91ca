#!/usr/bin/env bash
# MSRVTT-QA, projections only, from stage 2. Expected accuracy 33.6.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/video_vqa_msrvtt_s2.yaml "$@"
