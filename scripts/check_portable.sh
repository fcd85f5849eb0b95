#!/bin/sh
# Builds engine/ and backends/ for other systems, runs tests/portable there, and compares what it computes with what it computes here.
#
#   scripts/check_portable.sh [arm64] [wasm] [windows]      all of them if none is named
#
# It installs the compilers, and what runs their programs here, with apt-get; a system whose packages can't be installed is skipped.
# Ends with a line that counts them; exits with 1 if one failed or all were skipped.
set -eu
cd "$(dirname "$0")/.."

systems=${*:-arm64 wasm windows}
graph=tests/engine/golden/every-op-1.graph
place=build/portable
mkdir -p "$place"

# build PRESET
build() {
  cmake --preset "$1" -DFLUXION_TESTS=ON >"$place/$1.build.log" 2>&1 && cmake --build --preset "$1" --target fluxion-portable >>"$place/$1.build.log" 2>&1
}

# The compiler of this machine gives what the others are compared with.
sh scripts/setup.sh
echo "check_portable: building for this machine"
if ! build runtime; then
  tail -n 50 "$place/runtime.build.log" >&2
  echo "check_portable: the build for this machine failed" >&2
  exit 1
fi
build/runtime/bin/fluxion-portable "$graph" --write "$place/runtime.values"

passed=0
failed=0
skipped=0
for system in $systems; do
  case "$system" in
    arm64) program=build/arm64/bin/fluxion-portable; runner="qemu-aarch64-static -L /usr/aarch64-linux-gnu" ;;
    wasm) program=build/wasm/bin/fluxion-portable.js; runner="node --no-experimental-fetch" ;;  # by which this emscripten would load the file beside the program
    windows) program=build/windows/bin/fluxion-portable.exe; runner=wine64; export WINEDEBUG=-all "WINEPREFIX=$PWD/$place/wine" ;;
    *)
      echo "check_portable: there is no system '$system'; there are arm64, wasm and windows" >&2
      exit 2
      ;;
  esac
  echo
  if ! sh scripts/setup.sh "$system" >"$place/$system.setup.log" 2>&1; then
    echo "$system: SKIPPED: its packages can't be installed: $(tail -n 1 "$place/$system.setup.log")"
    skipped=$((skipped + 1))
    continue
  fi
  echo "$system: building"
  if ! build "$system"; then
    tail -n 50 "$place/$system.build.log"
    echo "$system: FAILED: it can't be built"
    failed=$((failed + 1))
    continue
  fi
  [ "$system" != windows ] || PATH=$PATH:/usr/lib/wine
  start=$(date +%s)
  # $runner is a list of words.
  # shellcheck disable=SC2086
  if $runner "$program" "$graph" --write "$place/$system.values" --compare "$place/runtime.values"; then
    echo "$system: passed in $(($(date +%s) - start)) s; $(stat -c '%n has %s bytes' build/"$system"/bin/fluxion-portable* | paste -s -d ',' - | sed 's/,/, /g')"
    passed=$((passed + 1))
  else
    echo "$system: FAILED"
    failed=$((failed + 1))
  fi
done

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
