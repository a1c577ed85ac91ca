#!/usr/bin/env bash
# AudioCaps captioning, a modality not seen in pretraining.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/audio_caption_audiocaps.yaml "$@"
