#!/usr/bin/env bash
# Self-critical finetuning of RefCOCO+, a hit (IoU >= 0.5) is the reward.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus.yaml "$@"
