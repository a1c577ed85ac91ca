#!/usr/bin/env bash
# Evaluate a checkpoint on a table: evaluate.sh CHECKPOINT TABLE [--task ... --any-option value]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" evaluate "$@"
