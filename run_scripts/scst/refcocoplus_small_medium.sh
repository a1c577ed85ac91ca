#!/usr/bin/env bash
# Rewarded soups - hits on small and medium targets (below 100000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_small_medium.yaml "$@"
