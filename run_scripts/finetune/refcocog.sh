#!/usr/bin/env bash
# RefCOCO (g) grounding, Acc@0.5. Expected val/test 84.7/85.2.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcocog.yaml "$@"
