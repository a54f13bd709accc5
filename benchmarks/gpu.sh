#!/usr/bin/env bash
# What one GPU does with koinize, in at most SECONDS_IN_ALL seconds and without a network:
#
#     benchmarks/gpu.sh              # one H100 or H200 -> ${OUT:-benchmarks/results}/gpu.md
#     benchmarks/gpu.sh --small      # the same code on the CPU at small shapes, for a test
#
# koinize runs from source. PYTHON says which interpreter; packages that it lacks go on PYTHONPATH.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OUT="${OUT:-benchmarks/results}"
exec "${PYTHON:-python3}" -m benchmarks.gpu --seconds "${SECONDS_IN_ALL:-210}" "$@"
