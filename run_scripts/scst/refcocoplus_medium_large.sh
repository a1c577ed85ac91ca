#!/usr/bin/env bash
# Rewarded soups - hits on medium and large targets (above 30000 pixels squared).
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/scst/refcocoplus_medium_large.yaml "$@"
