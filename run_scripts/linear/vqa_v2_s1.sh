#!/usr/bin/env bash
# VQAv2, projections only, from stage 1. Expected accuracy on val 71.6.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/vqa_v2_s1.yaml "$@"
