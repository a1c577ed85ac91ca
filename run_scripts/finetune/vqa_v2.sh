#!/usr/bin/env bash
# VQAv2 with the released answer list, question repeated as decoder prompt. Expected test-dev 77.0.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/vqa_v2.yaml "$@"
