#!/usr/bin/env bash
# AudioCaps captioning, a modality not seen in pretraining. Script: 25 epochs, batch 8 x 2 x 8 GPUs.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/audio_caption_audiocaps.yaml "$@"
