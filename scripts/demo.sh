#!/bin/sh
# Draws digits with the generators that come with the program, then trains one like the first, and draws with that: each digit with one evaluation of
# the network. At most five minutes of training.
#
#   scripts/demo.sh [MINUTES] [FOLDER]      default: 5 out/demo
set -eu
minutes=${1:-5}
out=${2:-out/demo}
case "${2:-}" in ''|/*) ;; *) out=$PWD/$2 ;; esac
cd "$(dirname "$0")/.."

fluxion=build/release/bin/fluxion
start=$(date +%s)

sh scripts/setup.sh
mkdir -p build
if [ -x "$fluxion" ]; then
  echo "demo: 1 of 4: building what has changed"
else
  echo "demo: 1 of 4: building the program, once: about $((9 / $(nproc) + 1)) minutes on this machine's $(nproc) cores"
fi
if ! cmake --preset release >build/demo.log 2>&1; then
  tail -n 60 build/demo.log >&2
  exit 1
fi
# On a terminal ninja shows one line that counts.
NINJA_STATUS="[%f of %t, %es] " cmake --build --preset release --target fluxion
built=$(date +%s)

mkdir -p "$out"
"$fluxion" sample --model examples/generators/glyphs.fxn --count 80 --seed 7 --out "$out/ready-made.png" >/dev/null
"$fluxion" sample --model examples/generators/mnist.fxn --count 80 --seed 7 --out "$out/handwritten.png" >/dev/null
echo "demo: 2 of 4: digits of the generators that come with it: $out/ready-made.png, $out/handwritten.png"

echo "demo: 3 of 4: training on built-in digits for at most $minutes min; Ctrl-C ends it early and keeps what it learned"
trap : INT  # it is for the training, which saves and ends with 130
"$fluxion" train --data glyphs --kappa 0.5 --minutes "$minutes" --out "$out" >/dev/null || [ $? -eq 130 ]
trap - INT
echo "demo: 4 of 4: drawing"
"$fluxion" sample --model "$out/model.safetensors" --count 80 --steps 1 --seed 7 --out "$out/samples.png" >/dev/null
end=$(date +%s)

echo
echo "New digits, one network evaluation each: $out/samples.png"
echo "Built in $((built - start)) s; trained and sampled in $((end - built)) s."
