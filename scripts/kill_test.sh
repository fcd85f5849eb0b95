#!/bin/sh
# Kills a training run at random moments, 50 times or as often as asked, resumes it each time, and compares what it ends with, bit for bit, with a run
# that was left alone.
#
#   scripts/kill_test.sh [KILLS]
set -eu
cd "$(dirname "$0")/.."

sh scripts/setup.sh
mkdir -p build
if ! { cmake --preset release -DFLUXION_TESTS=ON && cmake --build --preset release --target fluxion-tests; } >build/kill_test.log 2>&1; then
  tail -n 60 build/kill_test.log >&2
  exit 1
fi
FLUXION_KILLS=${1:-50} build/release/bin/fluxion-tests "[kill]"
