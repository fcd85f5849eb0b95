#!/bin/sh
# From the start of a process to the first image in memory, with warm file caches: the runtime library against ONNX Runtime, libtorch, ggml and
# PyTorch with the same DiT (28 x 28 digits, one step), alternately; and the time of later images one by one and 64 at once. First it checks that all
# of them draw the same image. Wants a quiet machine.
#
#   bench/cold_start.sh --venv DIR [--ggml DIR] [--peer FILE] [--fluxion FILE] [--threads N] [--starts N] [--calls N] [--quick] [--out FILE]
#
#   --venv     a virtual environment with PyTorch; programs that it can't run are left out: ONNX Runtime wants pip install onnx onnxruntime
#   --ggml     ggml: its source, built into build/ggml for this processor, or where it is installed, taken as it was built; without, it is left out
#   --peer     the file with PyTorch's DiT (default: ../shared/peers/torch_meanflow_bench.py beside this checkout)
#   --fluxion  the program that makes the .fxn file (default: builds the release preset)
#   --threads  of each program (default: 2)
#   --starts   of each program (default: 25)
#   --calls    timed in each of three processes for the time of later images (default: 30)
#   --quick    two starts and three calls, to see that it works
#   --out      every single result as a line of JSON
#
# "Without the weights" is the time less that for opening the generator, that is, for reading the weights and the graph.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
peer="$root/../shared/peers/torch_meanflow_bench.py"
fluxion=""
venv=""
ggml=""
threads=2
starts=25
calls=30
out=""
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick) starts=2; calls=3; shift; continue ;;
    --venv|--ggml|--peer|--fluxion|--threads|--starts|--calls|--out) [ $# -gt 1 ] || { echo "cold_start: $1 wants a value; see --help" >&2; exit 2; } ;;
    *) echo "cold_start: unknown option $1; see --help" >&2; exit 2 ;;
  esac
  case "$1" in
    --venv) venv=$2 ;;
    --ggml) ggml=$2 ;;
    --peer) peer=$2 ;;
    --fluxion) fluxion=$2 ;;
    --threads) threads=$2 ;;
    --starts) starts=$2 ;;
    --calls) calls=$2 ;;
    --out) out=$2 ;;
  esac
  shift 2
done
absolute() { case "$1" in ''|/*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
venv=$(absolute "$venv")
ggml=$(absolute "$ggml")
peer=$(absolute "$peer")
fluxion=$(absolute "$fluxion")
out=$(absolute "$out")
python=$venv/bin/python
if [ ! -x "$python" ]; then
  echo "cold_start: --venv '$venv' is no virtual environment: it has no bin/python" >&2
  exit 1
fi
if [ ! -f "$peer" ]; then
  echo "cold_start: $peer is not there; say with --peer where torch_meanflow_bench.py is" >&2
  exit 1
fi
if [ -n "$ggml" ] && [ ! -f "$ggml/CMakeLists.txt" ] && [ ! -f "$ggml/include/ggml.h" ]; then
  echo "cold_start: --ggml '$ggml' has neither ggml's source nor its installed headers" >&2
  exit 1
fi

cd "$root"
place=$root/build/cold-start
rm -rf "$place"
mkdir -p "$place"
log=$place/log
built() {
  "$@" >>"$log" 2>&1 && return
  tail -n 40 "$log" >&2
  echo "cold_start: $1 failed" >&2
  exit 1
}
echo "cold_start: building"
built cmake --preset runtime
built cmake --build build/runtime --target fluxion_runtime
if [ -z "$fluxion" ]; then
  built cmake --preset release
  built cmake --build build/release --target fluxion
  fluxion=$root/build/release/bin/fluxion
fi
library=$root/build/runtime/embed
built strip -o "$place/libfluxion-runtime.so.0.1" "$library/libfluxion-runtime.so"
built cc -O2 -Iembed bench/cold_start.c -o "$place/cold_start" -L"$library" -lfluxion-runtime "-Wl,-rpath,$place"

# A file of dit28's shape, and the parameters that all programs are given.
built "$fluxion" train --data glyphs --image-size 28 --net dit --width 128 --depth 6 --heads 4 --patch 4 --method meanflow --steps 1 --batch 4 --quiet \
  --out "$place/trained"
built "$python" bench/cold_start_peers.py prepare "$peer" "$place/trained/model.safetensors" "$place"
built "$fluxion" export --model "$place/model.safetensors" --out "$place/dit28.fxn"
[ -f "$place/network.onnx" ] || echo "cold_start: no ONNX Runtime: $venv lacks onnx or onnxruntime"
torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))')
if ! c++ -std=c++20 -O2 -I"$torch/include" -I"$torch/include/torch/csrc/api/include" bench/cold_start_torch.cpp -o "$place/cold_start_torch" -L"$torch/lib" \
    -ltorch_cpu -lc10 "-Wl,-rpath,$torch/lib" >"$place/libtorch.log" 2>&1 ||
    ! "$place/cold_start_torch" "$place/network.pt" 1 >>"$place/libtorch.log" 2>&1; then
  echo "cold_start: no libtorch: $(grep -m 1 -i error "$place/libtorch.log")"
  rm -f "$place/cold_start_torch"
fi
if [ -n "$ggml" ]; then
  mkdir -p "$place/ggml"
  cat >"$place/ggml/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.21)
project(cold_start_ggml C CXX)
add_executable(cold_start_ggml "$root/bench/cold_start_ggml.cpp")
target_compile_features(cold_start_ggml PRIVATE cxx_std_20)
if(EXISTS "$ggml/CMakeLists.txt")
  add_subdirectory("$ggml" ggml EXCLUDE_FROM_ALL)
  target_link_libraries(cold_start_ggml PRIVATE ggml)
else()
  find_package(ggml REQUIRED PATHS "$ggml" NO_DEFAULT_PATH)
  target_link_libraries(cold_start_ggml PRIVATE ggml::ggml)
endif()
END
  # GGML_LLAMAFILE, off by default, is ggml's own faster matrix product, which llama.cpp builds it with.
  built cmake -G Ninja -S "$place/ggml" -B build/ggml -U ggml_DIR -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-march=native \
    -DCMAKE_CXX_FLAGS=-march=native -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON
  built cmake --build build/ggml --target cold_start_ggml
  cp build/ggml/cold_start_ggml "$place"
fi
"$place/cold_start" "$place/dit28.fxn" 1 "$place/ours" >/dev/null
"$python" bench/cold_start_peers.py check "$place"
exec "$python" bench/cold_start.py --folder "$place" --python "$python" --threads "$threads" --starts "$starts" --calls "$calls" ${out:+--out "$out"}
