#!/usr/bin/env bash
# RefCOCO grounding, Acc@0.5. Expected val/testA/testB 89.1/91.5/85.2.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcoco.yaml "$@"
