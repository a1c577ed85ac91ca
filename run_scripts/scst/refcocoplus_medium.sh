#!/usr/bin/env bash
# Rewarded soups - hits on medium targets (30000 to 100000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_medium.yaml "$@"
