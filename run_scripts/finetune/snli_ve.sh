#!/usr/bin/env bash
# SNLI-VE without the text premise, hypothesis repeated in the decoder. Expected dev/test 78.2/78.6.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/snli_ve.yaml "$@"
