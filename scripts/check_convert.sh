#!/bin/sh
# Checks the way of somebody else's checkpoint: made by PyTorch, converted, imported, sampled, and the samples compared with PyTorch's.
# Usage: scripts/check_convert.sh [FLUXION]. Ends with 77 if there is no Python with PyTorch ($PYTHON, or python3).
set -eu
cd "$(dirname "$0")/.."
fluxion=$(realpath "${1:-build/release/bin/fluxion}")
unset LD_PRELOAD  # PyTorch does not start under every preloaded allocator

python=""
for candidate in ${PYTHON:-} python3 /usr/bin/python3; do
  if "$candidate" -c "import torch, numpy" >/dev/null 2>&1; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "check_convert: skipped, no Python with PyTorch"
  exit 77
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" tests/models/odd_checkpoint.py write "$folder/odd.pt"
"$python" scripts/convert_checkpoint.py "$folder/odd.pt" "$folder/odd.safetensors"
"$python" tests/models/odd_checkpoint.py compare "$folder/odd.safetensors"
"$fluxion" inspect "$folder/odd.safetensors" >/dev/null

"$python" tests/models/public_dit.py checkpoints "$folder"
for arguments in "$folder"/*.arguments; do
  name=${arguments%.arguments}
  for file in "$name" "$name-silent"; do
    "$python" scripts/convert_checkpoint.py "$file.pt" "$file.safetensors"
    # $arguments is a list of words.
    # shellcheck disable=SC2046
    "$fluxion" import "$file.safetensors" --out "$file.model.safetensors" $(cat "$arguments") >"$file.log"
  done
  case "$name" in
    */meanflow) steps="--steps 2" ;;
    *) steps="--steps 4 --sampler euler" ;;
  esac
  for file in "$name" "$name-silent"; do
    # shellcheck disable=SC2086
    "$fluxion" sample --model "$file.model.safetensors" --count 13 --seed 1 $steps --npy "$file.npy" >/dev/null
  done
done
"$python" tests/models/public_dit.py compare "$folder"
