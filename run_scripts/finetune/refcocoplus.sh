#!/usr/bin/env bash
# RefCOCO+ grounding, Acc@0.5. Expected val/testA/testB 82.18/86.92/75.27.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcocoplus.yaml "$@"
