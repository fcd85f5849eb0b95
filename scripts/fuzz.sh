#!/bin/sh
# Fuzzes for some seconds (600 unless told), a part of them each: random programs, the readers of files, serialised programs that strangers
# changed, sampler files, and pictures, under the address and undefined-behaviour sanitizers. Installs clang 16 where it is missing. What is interesting stays in build/fuzz/corpus for the next time; a finding's bytes land in
# build/fuzz/findings, and the script exits with 1.
#
#   scripts/fuzz.sh [seconds] [target]      target: programs, files, hostile, samplers, pictures
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-600}
targets=${2:-programs files hostile samplers pictures}
case "$seconds" in ''|*[!0-9]*|0) echo "fuzz: wants a whole number of seconds, got $seconds" >&2; exit 2 ;; esac
for target in $targets; do
  case "$target" in
    programs|files|hostile|samplers|pictures) ;;
    *) echo "fuzz: there is no target $target; there are programs, files, hostile, samplers, pictures" >&2; exit 2 ;;
  esac
done
sh scripts/setup.sh

if [ "${FLUXION_SETUP:-}" != no ] && { ! command -v clang++-16 >/dev/null 2>&1 || [ ! -e /usr/lib/llvm-16/lib/clang/16/lib/linux ]; }; then
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "fuzz: not root and no sudo; as root, run: apt-get install clang-16 libclang-rt-16-dev" >&2; exit 1; }
    as_root="sudo"
  fi
  echo "fuzz: installing clang-16"
  $as_root apt-get update -q >/dev/null
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends clang-16 libclang-rt-16-dev >/dev/null
fi

echo "fuzz: building"
mkdir -p build/fuzz/findings
if ! { cmake --preset fuzz && cmake --build --preset fuzz; } >build/fuzz/build.log 2>&1; then
  tail -n 50 build/fuzz/build.log >&2
  echo "fuzz: the build failed" >&2
  exit 1
fi
build/fuzz/bin/fluxion-fuzz-seeds build/fuzz/corpus/files build/fuzz/corpus/hostile build/fuzz/corpus/samplers
build/fuzz/bin/fluxion-fuzz-picture-seeds build/fuzz/corpus/pictures
mkdir -p build/fuzz/corpus/programs
cp tests/models/golden/*.fxn build/fuzz/corpus/samplers

set -- $targets
each=$((seconds / $#))
[ "$each" -ge 1 ] || each=1  # 0 would be for ever
failed=0
for target in $targets; do
  echo "fuzz: $target for $each s"
  # Random programs draw some five hundred bytes; files are small; serialised programs have some thousand.
  case $target in
    hostile | samplers) length=8192 ;;
    pictures) length=4096 ;;
    *) length=1024 ;;
  esac
  if build/fuzz/bin/fluxion-fuzz-"$target" -max_total_time="$each" -max_len=$length -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 \
      -artifact_prefix=build/fuzz/findings/ build/fuzz/corpus/"$target" >build/fuzz/"$target".log 2>&1; then
    grep -E "^Done|number_of_executed_units|cov:" build/fuzz/"$target".log | tail -n 3
  else
    failed=1
    tail -n 60 build/fuzz/"$target".log
    echo "fuzz: $target found something; its bytes are in build/fuzz/findings"
  fi
done
exit $failed
