#!/usr/bin/env bash
# Rewarded soups - hits on large targets (above 100000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_large.yaml "$@"
