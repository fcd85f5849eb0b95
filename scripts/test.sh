#!/bin/sh
# Builds everything and runs every test. Ends with a line that counts them, `N passed, N failed`; exits with 1 if any failed.
#
# The reference vectors are used where there are some: $FLUXION_ORACLES, or ../shared/oracles.
set -eu
cd "$(dirname "$0")/.."

sh scripts/setup.sh tests
mkdir -p build
echo "test: building"
if ! { cmake --preset release -DFLUXION_TESTS=ON && cmake --build --preset release; } >build/test.log 2>&1; then
  tail -n 100 build/test.log >&2
  echo "test: the build failed" >&2
  exit 1
fi

passed=0
failed=0

echo "test: unit tests"
ctest --preset release --parallel "$(nproc)" --no-tests=error >build/ctest.log 2>&1 || true
# "98% tests passed, 3 tests failed out of 150"
summary=$(grep -E '^[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' build/ctest.log || true)
if [ -n "$summary" ]; then
  unit_failed=$(echo "$summary" | sed -E 's/.* ([0-9]+) tests? failed out of ([0-9]+).*/\1/')
  unit_total=$(echo "$summary" | sed -E 's/.* ([0-9]+) tests? failed out of ([0-9]+).*/\2/')
  failed=$((failed + unit_failed))
  # ctest counts what was skipped among what passed.
  skipped=$(grep -cE '\*\*\*Skipped' build/ctest.log || true)
  passed=$((passed + unit_total - unit_failed - skipped))
  echo "$((unit_total - unit_failed - skipped)) of $unit_total passed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
else
  unit_failed=1
  failed=$((failed + 1))
fi
if [ "$unit_failed" -gt 0 ]; then
  ctest --preset release --rerun-failed --output-on-failure 2>&1 | tail -n 200
fi

oracles=${FLUXION_ORACLES:-../shared/oracles}
if [ -n "${FLUXION_ORACLES:-}" ] && [ ! -d "$oracles" ]; then
  echo "test: FLUXION_ORACLES is $oracles, which is no folder"
  failed=$((failed + 1))
elif [ ! -d "$oracles" ]; then
  echo "test: no reference vectors: $oracles is not there"
else
  echo "test: reference vectors in $oracles"
  code=0
  build/release/bin/fluxion-oracles "$oracles" >build/oracles.log 2>&1 || code=$?
  # "812 passed, 0 failed, 97 skipped"
  summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed' build/oracles.log | tail -n 1 || true)
  if [ -n "$summary" ]; then
    echo "$summary"
    oracle_failed=$(echo "$summary" | sed -E 's/^[0-9]+ passed, ([0-9]+) failed.*/\1/')
    passed=$((passed + $(echo "$summary" | sed -E 's/^([0-9]+) passed.*/\1/')))
    [ "$code" -eq 0 ] || [ "$oracle_failed" -gt 0 ] || oracle_failed=1
  else
    oracle_failed=1
  fi
  failed=$((failed + oracle_failed))
  [ "$oracle_failed" -eq 0 ] || tail -n 60 build/oracles.log
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
