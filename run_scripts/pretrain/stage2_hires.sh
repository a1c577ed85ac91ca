#!/usr/bin/env bash
# Pretraining, stage2_hires of the curriculum (configs/pretrain/stage2_hires.yaml).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/pretrain/stage2_hires.yaml "$@"
