#!/usr/bin/env bash
# MSVD-QA test, without finetuning: video_vqa_msvd_zeroshot.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "${1:?give a checkpoint}" \
  --recipe configs/evaluate/video_vqa_msvd_zeroshot.yaml "${@:2}"
