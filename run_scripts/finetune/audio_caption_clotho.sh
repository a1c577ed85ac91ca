#!/usr/bin/env bash
# Clotho v1 captioning. Expected CIDEr 38.0.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/audio_caption_clotho.yaml "$@"
