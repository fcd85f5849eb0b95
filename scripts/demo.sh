#!/bin/sh
# Trains a MeanFlow generator on built-in digits and draws new ones, each with one evaluation of the network. At most five minutes of training.
#
#   scripts/demo.sh [MINUTES] [FOLDER]      default: 5 out/demo
set -eu
cd "$(dirname "$0")/.."

minutes=${1:-5}
out=${2:-out/demo}
start=$(date +%s)

sh scripts/setup.sh
mkdir -p build
echo "demo: building"
if ! { cmake --preset release && cmake --build --preset release --target fluxion; } >build/demo.log 2>&1; then
  tail -n 60 build/demo.log >&2
  exit 1
fi
built=$(date +%s)

fluxion=build/release/bin/fluxion
"$fluxion" train --data glyphs --kappa 0.5 --minutes "$minutes" --out "$out" >/dev/null
"$fluxion" sample --model "$out/model.safetensors" --count 80 --steps 1 --seed 7 --out "$out/samples.png" >/dev/null
end=$(date +%s)

echo
echo "New digits, one network evaluation each: $out/samples.png"
echo "Built in $((built - start)) s; trained and sampled in $((end - built)) s."
