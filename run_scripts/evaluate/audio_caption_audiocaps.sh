#!/usr/bin/env bash
# AudioCaps test: audio_caption_audiocaps.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/audio_caption_audiocaps.yaml "${@:2}"
