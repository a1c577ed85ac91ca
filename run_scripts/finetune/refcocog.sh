#!/usr/bin/env bash
# RefCOCOg grounding (UMD split), Acc@0.5. Expected val/test 84.70/85.16.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train configs/finetune/refcocog.yaml "$@"
