#!/usr/bin/env bash
# Pretraining, stage1 of the curriculum (configs/pretrain/stage1.yaml).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/pretrain/stage1.yaml "$@"
