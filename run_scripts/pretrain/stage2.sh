#!/usr/bin/env bash
# Pretraining, stage2 of the curriculum (configs/pretrain/stage2.yaml).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/pretrain/stage2.yaml "$@"
