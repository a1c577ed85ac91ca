#!/usr/bin/env bash
# COCO text-to-image: image_gen.sh CHECKPOINT [TABLE] [--any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate --recipe configs/evaluate/image_gen_coco.yaml "$@"
