#!/usr/bin/env bash
# VQAv2 with the released list of 3.1k answers. Expected test-dev/test-std 77.0/77.1.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/vqa_v2.yaml "$@"
