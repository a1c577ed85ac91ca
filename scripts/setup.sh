#!/usr/bin/env bash
# Makes .venv when there is none and installs the project with training and development extras.
# A stamp of setup.py skips the installation when nothing changed. UNIVAL_PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || "${UNIVAL_PYTHON:-python3}" -m venv .venv
stamp=".venv/.unival-$(cksum < setup.py | cut -d' ' -f1)"
[ -e "$stamp" ] && exit 0
echo "installing into .venv (torch is several GB, fairseq compiles for about three minutes)"
.venv/bin/python -m pip install --quiet --upgrade pip setuptools wheel
.venv/bin/python -m pip install --quiet torch torchvision
.venv/bin/python -m pip install --quiet -e '.[train,dev]'
touch "$stamp"
