#!/usr/bin/env bash
# Clotho v1 evaluation set: audio_caption_clotho.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/audio_caption_clotho.yaml "${@:2}"
