#!/usr/bin/env bash
# AudioCaps captioning, projections only, from stage 1. Expected CIDEr 47.5.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/linear/audio_caption_audiocaps_s1.yaml "$@"
