#!/bin/sh
# Races Fluxion against PyTorch on the same three networks and steps, alternately, in one go, on this machine: time, memory, and what MeanFlow costs
# over flow matching. Prints the ratios with their spread and whether they meet the bars. Wants a quiet machine and takes about twelve minutes, and
# about forty where PyTorch can compile.
#
#   bench/compare_torch.sh [--venv DIR] [--peer FILE] [--fluxion FILE] [--threads N] [--net NAME] [--no-compile] [--budget SECONDS] [--steps N]
#                          [--quick] [--out FILE]
#
# PyTorch is that of the Python in $PYTHON, else of --venv, else of Debian's /usr/bin/python3.
#
#   --venv     a virtual environment that PyTorch is installed in
#   --peer     the PyTorch program (default: ../shared/peers/torch_meanflow_bench.py beside this checkout)
#   --fluxion  the program to race (default: builds the release preset)
#   --threads  of each program (default: 2)
#   --net      race only this network: mlp2d, dit28 or unet32
#   --no-compile  leave out torch.compile, which takes most of the time until the rounds begin
#   --budget   seconds for the rounds after PyTorch's best settings have been found (default: 300)
#   --steps    undisturbed steps to time in each run (default: 8)
#   --quick    tiny batches, one thread and one round, to see that it works
#   --out      every single result as a line of JSON
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
peer="$root/../shared/peers/torch_meanflow_bench.py"
fluxion=""
venv=""
# What is not for this script goes on to compare_torch.py: options are taken from the front and, where they stay, put back at the end.
left=$#
while [ "$left" -gt 0 ]; do
  option=$1
  shift
  left=$((left - 1))
  case "$option" in
    --help|-h) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick|--no-compile) set -- "$@" "$option" ;;
    --venv|--peer|--fluxion|--threads|--net|--budget|--steps|--out)
      if [ "$left" -lt 1 ]; then echo "compare_torch: $option wants a value; see --help" >&2; exit 2; fi
      value=$1
      shift
      left=$((left - 1))
      case "$option" in
        --venv) venv=$value ;;
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
python=${PYTHON:-/usr/bin/python3}
if [ -z "${PYTHON:-}" ] && [ -n "$venv" ]; then
  python=$venv/bin/python
  if [ ! -x "$python" ]; then
    echo "compare_torch: $venv is no virtual environment: it has no bin/python" >&2
    exit 1
  fi
fi
# The wheel on PyPI is built for CUDA and loads some of its libraries at import, without a GPU too: from the packages nvidia-* and from the toolkit.
libraries=$("$python" - 2>/dev/null <<'END'
import glob, os, shutil, sysconfig
folders = glob.glob(os.path.join(sysconfig.get_path("purelib"), "nvidia", "*", "lib"))
if compiler := shutil.which("nvcc"):
    toolkit = os.path.dirname(os.path.dirname(os.path.realpath(compiler)))
    folders += filter(os.path.isdir, (os.path.join(toolkit, part) for part in ("lib64", "extras/CUPTI/lib64")))
print(":".join(sorted(folders)))
END
) || libraries=""
if [ -n "$libraries" ]; then
  LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
fi
if ! reason=$("$python" -c "import torch" 2>&1); then
  echo "compare_torch: $python has no PyTorch that loads: $(printf '%s\n' "$reason" | tail -n 1)" >&2
  echo "From PyPI, into a virtual environment for --venv (needs a CUDA toolkit's libraries, no GPU):" >&2
  echo "  python3 -m venv DIR" >&2
  echo "  DIR/bin/pip install --no-deps torch nvidia-cufile nvidia-nvshmem-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13" >&2
  echo "  DIR/bin/pip install filelock typing-extensions sympy networkx jinja2 fsspec numpy setuptools" >&2
  echo "or Debian 12's, which is much older and slower:" >&2
  echo "  apt-get install python3-torch libblis4-openmp libopenblas0-pthread" >&2
  echo "and for either, its fastest allocator: apt-get install libtcmalloc-minimal4" >&2
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
