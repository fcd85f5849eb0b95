#!/bin/sh
# Checks Fluxion on this machine's GPU and measures it, in at most six minutes, with programs that need nothing but a C library and a Vulkan loader
# (cmake --preset portable && cmake --build --preset portable). Each result is written when it is there, so what a cut-off run has found is kept.
#
#   scripts/gpu_check.sh BIN OUT [--device vulkan:N] [--seconds S] [--small]
#
#   BIN        the folder of fluxion, fluxion-tests and fluxion-oracles (build/portable/bin)
#   OUT        the folder of results: results.json, table.md, report.json, and the output of each step
#   --device   default: vulkan, the machine's best
#   --seconds  for everything (default: 340)
#   --small    tiny sizes, no U-Net's training and no DiT-B/2, to rehearse on a software device
#
# It tests the contract of a backend, compares with reference vectors ($FLUXION_ORACLES, or ../shared/oracles), tests and measures kernel families
# (report.json), compares 200 training steps with the processor's, and times steps and samples, of DiT-B/2 on 32 x 32 x 4 latents, too. Where
# ${PYTHON:-python3} has PyTorch, it times the same steps there, on the GPU if PyTorch sees one ($FLUXION_PEER, or ../shared/peers/torch_meanflow_bench.py).
set -u

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
[ $# -ge 2 ] || { usage >&2; exit 2; }
bin=$(cd "$1" 2>/dev/null && pwd) || { echo "gpu_check: $1 is no folder" >&2; exit 2; }
mkdir -p "$2" && out=$(cd "$2" && pwd) || { echo "gpu_check: $2 can't be made" >&2; exit 2; }
shift 2
device=vulkan
seconds=340
small=0
while [ $# -gt 0 ]; do
  case "$1" in
    --device|--seconds)
      [ $# -ge 2 ] || { echo "gpu_check: $1 wants a value" >&2; exit 2; }
      if [ "$1" = --device ]; then device=$2; else seconds=$2; fi
      shift 2 ;;
    --small) small=1; shift ;;
    --help|-h) usage; exit 0 ;;
    *) echo "gpu_check: unknown option $1; see --help" >&2; exit 2 ;;
  esac
done
device_number=${device#vulkan}
case "$device_number" in ''|:*[0-9]) ;; *) device_number=no ;; esac
case "${device_number#:}" in *[!0-9]*) echo "gpu_check: --device wants vulkan or vulkan:N, got $device" >&2; exit 2 ;; esac
case "$seconds" in ''|*[!0-9]*) echo "gpu_check: --seconds wants a whole number, got $seconds" >&2; exit 2 ;; esac
for program in fluxion fluxion-tests fluxion-oracles; do
  [ -x "$bin/$program" ] || { echo "gpu_check: $bin/$program is not there" >&2; exit 2; }
done
root=$(cd "$(dirname "$0")/.." && pwd)
oracles=${FLUXION_ORACLES:-$root/../shared/oracles}
peer=${FLUXION_PEER:-$root/../shared/peers/torch_meanflow_bench.py}
python=${PYTHON:-python3}

start=$(date +%s)
left() { echo $((seconds - $(date +%s) + start)); }
failed=0
# Nothing of a run before may pass for this one's, and nothing of anybody else's is taken away.
touch "$out/step-names"
for name in $(grep -xE '[a-z0-9-]+' "$out/step-names"); do
  rm -f "$out/$name.log" "$out/$name.err"
  case "$name" in train-*) rm -rf "${out:?}/$name" ;; esac
done
rm -f "$out/report.json" "$out/results.json" "$out/table.md" "$out/torch.jsonl"
: >"$out/step-names"
: >"$out/steps.jsonl"

# The results so far, as one JSON file and one table.
write_results() {
  {
    printf '{"device": "%s", "seconds": %d, "steps": [\n' "$device" $(($(date +%s) - start))
    sed '$!s/$/,/' "$out/steps.jsonl"
    printf ']}\n'
  } >"$out/results.json.new" && mv "$out/results.json.new" "$out/results.json"
  {
    echo "| step | result | seconds |"
    echo "|---|---|---|"
    sed -E 's/^\{"step": "([^"]*)", "passed": [a-z]*, "seconds": ([0-9]+), "result": "([^"]*)".*$/| \1 | \3 | \2 |/' "$out/steps.jsonl"
  } >"$out/table.md.new" && mv "$out/table.md.new" "$out/table.md"
}

# note NAME PASSED SECONDS RESULT [JSON]
note() {
  text=$(printf '%s' "$4" | tr -d '\000-\037"\\' | tr '|' '/')
  printf '{"step": "%s", "passed": %s, "seconds": %d, "result": "%s"%s}\n' "$1" "$2" "$3" "$text" "${5:+, \"data\": $5}" >>"$out/steps.jsonl"
  [ "$2" = true ] || failed=$((failed + 1))
  echo "gpu_check: $1: $text"
  write_results
}

# step NAME LIMIT COMMAND..: runs it within LIMIT seconds (a software device gets four times as many) and what is left of all; its output goes to
# OUT/NAME.log. Sets code, took.
step() {
  name=$1
  limit=$2
  [ "$small" -eq 0 ] || limit=$((4 * limit))
  shift 2
  rest=$(left)
  [ "$limit" -le "$rest" ] || limit=$rest
  began=$(date +%s)
  echo "$name" >>"$out/step-names"
  : >"$out/$name.log"
  : >"$out/$name.err"
  if [ "$limit" -lt 5 ]; then
    code=124
  else
    code=0
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>"$out/$name.err" </dev/null || code=$?
  fi
  took=$(($(date +%s) - began))
}
passed_if() { if "$@"; then echo true; else echo false; fi; }
why() {
  case "$code" in
    124) echo "not done within its time" ;;
    137) if [ "$took" -ge "$limit" ]; then echo "not done within its time"; else echo "killed (is memory short?)"; fi ;;
    *) tail -n 1 "$out/$1.err" | cut -c1-300 ;;
  esac
}

# What the device is.
step devices 20 "$bin/fluxion" devices --json
if [ "$code" -eq 0 ] && ! grep -q '"vulkan:' "$out/devices.log"; then
  note devices false "$took" "no Vulkan device: $(sed -nE 's/.*"without_vulkan": ?"([^"]*)".*/\1/p' "$out/devices.log" | head -n 1)" "$(tr -d '\n' <"$out/devices.log")"
elif [ "$code" -eq 0 ]; then
  note devices true "$took" "listed" "$(tr -d '\n' <"$out/devices.log")"
else
  note devices false "$took" "$(why devices)"
fi

# The contract of a backend. A named device may be a software one. A test that checks nothing fails.
step conformance 100 env FLUXION_TEST_VULKAN_DEVICE="$device" "$bin/fluxion-tests" -w NoAssertions "* - Vulkan"
! grep -q "No tests ran" "$out/conformance.log" || code=1
note conformance "$(passed_if [ "$code" -eq 0 ])" "$took" "$(grep -E 'All tests passed|test cases:' "$out/conformance.log" | tail -n 1 || true) $( [ "$code" -eq 0 ] || why conformance)"

if [ -d "$oracles" ]; then
  step oracles 60 "$bin/fluxion-oracles" --device "$device" "$oracles"
  note oracles "$(passed_if [ "$code" -eq 0 ])" "$took" "$(grep -E '^[0-9]+ passed' "$out/oracles.log" | tail -n 1) $( [ "$code" -eq 0 ] || why oracles)"
fi

# Kernel families against the reference, bandwidth, products with each tile shape.
step report 60 "$bin/fluxion" devices --report "$out/report.json" --device "$device" --seconds 45
note report "$(passed_if [ "$code" -eq 0 ])" "$took" "$(grep -E 'kernel families are right$' "$out/report.log" | tail -n 1 || true) $( [ "$code" -eq 0 ] || why report)"

# 200 training steps there and on the processor: the same noise, so nearly the same losses.
steps=200
[ "$small" -eq 0 ] || steps=20
for where in cpu "$device"; do
  name=train-$(echo "$where" | tr -d ':')
  step "$name" 60 "$bin/fluxion" train --data 8gaussians --width 64 --batch 256 --steps "$steps" --seed 1 --device "$where" --out "$out/$name"
  [ "$code" -eq 0 ] || note "$name" false "$took" "$(why "$name")"
done
gpu_log="$out/train-$(echo "$device" | tr -d ':')/log.csv"
if [ -f "$out/train-cpu/log.csv" ] && [ -f "$gpu_log" ]; then
  # (Rows of other steps, and numbers that are none, are not counted, so that their number is not what it should be.)
  worst=$(awk -F, 'function finite(x) { return x ~ /^-?[0-9.]+(e[-+]?[0-9]+)?$/ }
    FNR == 1 { column = 0; for (i = 1; i <= NF; ++i) if ($i == "error") column = i; next }
    column == 0 { next }
    NR == FNR { loss[$1] = $column; next }
    finite($column) && finite(loss[$1]) && loss[$1] + 0 != 0 {
      d = $column - loss[$1]; d = d < 0 ? -d : d; s = loss[$1] < 0 ? -loss[$1] : loss[$1]; if (d / s > worst) worst = d / s; ++rows }
    END { printf "%d %.3g", rows, worst }' "$out/train-cpu/log.csv" "$gpu_log")
  rows=${worst% *}
  worst=${worst#* }
  note training "$(passed_if awk "BEGIN { exit !($rows == $steps / 10 + 1 && $worst < 0.01) }")" "$took" "errors in $rows rows of $steps steps differ from the processor's by at most $worst (relative; bar 0.01)"
else
  note training false 0 "the logs of the two runs are not both there"
fi

# Speed: milliseconds of steps and samples.
time_of() {
  step "$1" "$2" "$bin/fluxion" bench --device "$device" --json --seconds "$3" $4
  if [ "$code" -eq 0 ]; then
    note "$1" true "$took" "$(sed -nE 's/.*"ms_median": ?([0-9.e+-]+).*/\1 ms/p' "$out/$1.log" | head -n 1)" "$(tr -d '\n' <"$out/$1.log")"
  else
    note "$1" false "$took" "$(why "$1")"
  fi
}
few=""
[ "$small" -eq 0 ] || few="--batch 2 --steps 2 --peak-seconds 0"
for net in dit28 unet32 ditb2; do
  for task in flow-matching meanflow sample; do
    # (A software device compiles for minutes, or computes for minutes, what is left out here.)
    case "$small-$net-$task" in 1-unet32-flow* | 1-unet32-mean* | 1-ditb2-*) continue ;; esac
    time_of "$net-$task" 40 10 "--net $net --objective $task $few"
  done
done

# The same steps in PyTorch, as far as it gets.
if [ -f "$peer" ]; then
  step torch-import 60 "$python" -c "import torch"
  case $code in
    0) ;;
    124 | 137) note torch false "$took" "$(why torch-import)" ;;
    *) note torch true "$took" "left out: $python has no PyTorch that loads: $(why torch-import)" ;;
  esac
fi
if [ -f "$peer" ] && [ "$code" -eq 0 ]; then
  few="--seconds 3"
  [ "$small" -eq 0 ] || few="--net dit28 --batch 2 --seconds 0.1 --steps 2"
  # shellcheck disable=SC2086
  step torch 60 "$python" "$root/bench/torch_on_device.py" "$peer" $few
  timed=$(grep -cE '^\{.*"ms_median": [0-9]' "$out/torch.log" || true)
  note torch "$(passed_if [ "$timed" -gt 0 ])" "$took" "$timed steps timed $([ "$code" -eq 0 ] || why torch)"
  # (Foreign lines are passed over.)
  grep -E '^\{"net": .*\}$' "$out/torch.log" >"$out/torch.jsonl" || true
  while read -r line; do
    field() { echo "$line" | sed -nE "s/.*\"$1\": \"?([^\",}]*).*/\1/p"; }
    name=$(field net)-$(field objective)
    theirs=$(field ms_median)
    if [ -z "$theirs" ]; then
      note "torch-$name" true 0 "PyTorch: $(field problem)" "$line"
      continue
    fi
    ours=$(sed -nE 's/.*"ms_median": ?([0-9.e+-]+).*/\1/p' "$out/$name.log" 2>/dev/null | head -n 1)
    ratio=""
    [ -z "$ours" ] || ratio=", ours takes $(awk "BEGIN { printf \"%.2f\", $ours / $theirs }") times as long"
    note "torch-$name" true 0 "$theirs ms on $(field device)$ratio" "$line"
  done <"$out/torch.jsonl"
fi

echo
cat "$out/table.md"
echo
echo "gpu_check: $failed failed; $out/results.json, $out/table.md"
[ "$failed" -eq 0 ]
