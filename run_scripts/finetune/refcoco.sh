#!/usr/bin/env bash
# RefCOCO grounding, Acc@0.5. Expected val/testA/testB 89.12/91.53/85.16.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcoco.yaml "$@"
