#!/bin/sh
# Races Fluxion against PyTorch on the same three networks and steps, alternately, in one go, on this machine: time, memory, and what MeanFlow costs
# over flow matching. Prints the ratios with their spread and whether they meet the bars. Wants a quiet machine and takes about twelve minutes.
#
#   bench/compare_torch.sh [--peer FILE] [--fluxion FILE] [--threads N] [--budget SECONDS] [--steps N] [--quick] [--out FILE]
#
#   --peer     the PyTorch program (default: ../shared/peers/torch_meanflow_bench.py beside this checkout)
#   --fluxion  the program to race (default: builds the release preset)
#   --threads  of each program (default: 2)
#   --budget   seconds for the rounds after PyTorch's best settings have been found (default: 300)
#   --steps    undisturbed steps to time in each run (default: 8)
#   --quick    tiny batches, one thread and one round, to see that it works
#   --out      every single result as a line of JSON
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
peer="$root/../shared/peers/torch_meanflow_bench.py"
fluxion=""
python=${PYTHON:-/usr/bin/python3}
# What is not for this script goes on to compare_torch.py: options are taken from the front and, where they stay, put back at the end.
left=$#
while [ "$left" -gt 0 ]; do
  option=$1
  shift
  left=$((left - 1))
  case "$option" in
    --help|-h) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick) set -- "$@" "$option" ;;
    --peer|--fluxion|--threads|--budget|--steps|--out)
      if [ "$left" -lt 1 ]; then echo "compare_torch: $option wants a value; see --help" >&2; exit 2; fi
      value=$1
      shift
      left=$((left - 1))
      case "$option" in
        --peer) peer=$value ;;
        --fluxion) fluxion=$value ;;
        *) set -- "$@" "$option" "$value" ;;
      esac ;;
    *) echo "compare_torch: unknown option $option; see --help" >&2; exit 2 ;;
  esac
done

if [ ! -f "$peer" ]; then
  echo "compare_torch: $peer is not there; say with --peer where torch_meanflow_bench.py is" >&2
  exit 1
fi
if ! "$python" -c "import torch" 2>/dev/null; then
  echo "compare_torch: $python has no PyTorch; on Debian 12:" >&2
  echo "  apt-get install python3-torch libblis4-openmp libopenblas0-pthread libtcmalloc-minimal4" >&2
  exit 1
fi
if [ -z "$fluxion" ]; then
  mkdir -p "$root/build"
  if ! (cd "$root" && cmake --preset release && cmake --build build/release --target fluxion) >"$root/build/compare.log" 2>&1; then
    tail -n 40 "$root/build/compare.log" >&2
    echo "compare_torch: the build failed" >&2
    exit 1
  fi
  fluxion="$root/build/release/bin/fluxion"
fi

exec "$python" "$root/bench/compare_torch.py" --peer "$peer" --fluxion "$fluxion" "$@"
