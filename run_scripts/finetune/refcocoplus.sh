#!/usr/bin/env bash
# RefCOCO (plus) grounding, Acc@0.5. Expected val/testA/testB 82.2/86.9/75.3.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcocoplus.yaml "$@"
