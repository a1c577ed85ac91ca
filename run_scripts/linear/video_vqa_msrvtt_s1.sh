#!/usr/bin/env bash
# MSRVTT-QA, projections only, from stage 1, which has seen no video. Expected accuracy 19.1.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/video_vqa_msrvtt_s1.yaml "$@"
