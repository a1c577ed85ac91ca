#!/usr/bin/env bash
# Rewarded soups - hits on small targets (below 30000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_small.yaml "$@"
