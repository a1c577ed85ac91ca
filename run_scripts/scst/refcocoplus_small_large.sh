#!/usr/bin/env bash
# Rewarded soups - hits on small and large targets (below 30000 or above 100000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_small_large.yaml "$@"
