#!/usr/bin/env bash
# AudioCaps captioning, projections only, from stage 2. Expected CIDEr 49.5.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/audio_caption_audiocaps_s2.yaml "$@"
