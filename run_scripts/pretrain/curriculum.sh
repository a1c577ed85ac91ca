#!/usr/bin/env bash
# The whole curriculum: images, then images and videos, then high resolution. Resumable at any point.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
for stage in stage1 stage2 stage2_hires; do bash "$here/$stage.sh" "$@"; done
