#!/usr/bin/env bash
# One pretraining of tables 2, 3, 4, 12 or 17: ablation.sh RECIPE [--any-option value], RECIPE one of configs/ablation.
# Table 3 without balancing: ablation.sh b --mixing proportional --save-dir out/ablation/b_proportional
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_launch.sh" train "configs/ablation/${1:?name a recipe of configs/ablation}.yaml" "${@:2}"
