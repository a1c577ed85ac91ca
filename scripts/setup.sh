#!/usr/bin/env bash
# Makes .venv when there is none and installs the project with the given extras (default: train).
# A stamp of setup.py skips the installation when nothing changed. UNIVAL_PYTHON names the interpreter.
# Usage: bash scripts/setup.sh [EXTRA...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || "${UNIVAL_PYTHON:-python3}" -m venv .venv
[ "$#" -gt 0 ] || set -- train
stamp=".venv/.unival-$(cksum < setup.py | cut -d' ' -f1)"
missing=()
for extra in "$@"; do [ -e "$stamp-$extra" ] || missing+=("$extra"); done
[ "${#missing[@]}" -gt 0 ] || exit 0
echo "installing ${missing[*]} into .venv (torch is several GB, fairseq compiles for about three minutes)"
if .venv/bin/python -c 'import pip' 2> /dev/null; then
  install=(.venv/bin/python -m pip install --quiet)
  "${install[@]}" --upgrade pip setuptools wheel
else  # an environment that uv made
  install=(uv pip install --quiet --python .venv/bin/python)
fi
"${install[@]}" torch torchvision
"${install[@]}" -e ".[$(IFS=,; echo "${missing[*]}")]"
for extra in "${missing[@]}"; do touch "$stamp-$extra"; done
