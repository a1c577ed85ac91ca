#!/usr/bin/env bash
# Clotho v1 captioning. Script 25 epochs, batch 16 x 8 GPUs, lr 5e-5; paper 10 epochs, batch 128, lr 5e-5.extends: audio_caption_audiocaps.yaml
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/audio_caption_clotho.yaml "$@"
