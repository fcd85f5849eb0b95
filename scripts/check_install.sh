#!/bin/sh
# Checks an installation: moves it, builds examples/outside against it with CMake and with pkg-config, runs the programs and compares what they say.
# Usage: scripts/check_install.sh BUILD_FOLDER MODEL.safetensors, after the folder's targets are built.
set -eu
cd "$(dirname "$0")/.."
build=$1
model=$(realpath "$2")
place=$build/check-install
rm -rf "$place"
mkdir -p "$place"
place=$(realpath "$place")

cmake --install "$build" --prefix "$place/first" >"$place/install.log"
mv "$place/first" "$place/moved"
prefix=$place/moved
if grep -rIlF -e "$place/first" -e "$PWD/" "$prefix"; then
  echo "check_install: these files name the folder they were built in or installed to" >&2
  exit 1
fi
[ -x "$prefix/bin/fluxion" ]
[ -f "$prefix/share/doc/fluxion/LICENSE" ]
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name fluxion.pc)")
export PKG_CONFIG_PATH
if command -v ccache >/dev/null 2>&1; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

# Every header can be included, with warnings as errors, by an application that has folders of the same names.
for folder in engine engine/graph autograd models; do
  mkdir -p "$place/application/$folder"
done
for header in engine/error.h engine/graph/tensor.h autograd/linearize.h models/model_file.h; do
  echo '#error "this is the application'"'"'s own"' >"$place/application/$header"
done
(cd "$prefix/include" && find fluxion -name '*.h' | sort | sed 's/.*/#include <&>/') >"$place/headers.cpp"
[ "$(wc -l <"$place/headers.cpp")" -gt 20 ]
# pkg-config's answers are words for a shell.
eval "set -- $(pkg-config --cflags fluxion)"
c++ -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I"$place/application" -iquote "$place/application" "$@" "$place/headers.cpp"

cmake -G Ninja -S examples/outside -B "$place/cmake" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >"$place/cmake.log"
cmake --build "$place/cmake"
eval "set -- $(pkg-config --cflags --libs --static fluxion)"
for program in sample derive; do
  [ -x "$place/cmake/$program" ] || continue
  c++ -std=c++20 -O1 "examples/outside/$program.cpp" -o "$place/$program" "$@"
done

"$prefix/bin/fluxion" sample --model "$model" --count 13 --npy "$place/expected.npy"
for folder in "$place/cmake" "$place"; do
  "$folder/sample" "$model" 13 "$folder/samples.npy"
  cmp "$folder/samples.npy" "$place/expected.npy"
  [ ! -x "$folder/derive" ] || [ "$("$folder/derive")" = "f = 36, f' along the direction = -24, gradient = (3, 12, 27)" ]
done
# The same project with the source as one of its folders: the same targets and headers. (Only its own files are compiled.)
mkdir "$place/folder"
cat >"$place/folder/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(folder LANGUAGES CXX)
include(FetchContent)
FetchContent_Declare(fluxion SOURCE_DIR "$PWD")
FetchContent_MakeAvailable(fluxion)
add_executable(sample "$PWD/examples/outside/sample.cpp")
target_include_directories(sample PRIVATE "$place/application")
target_link_libraries(sample PRIVATE fluxion::inference)
if(TARGET fluxion::autograd)
  add_executable(derive "$PWD/examples/outside/derive.cpp")
  target_link_libraries(derive PRIVATE fluxion::fluxion)
endif()
EOF
autograd=OFF
[ ! -x "$place/derive" ] || autograd=ON
cmake -G Ninja -S "$place/folder" -B "$place/folder/build" -DFLUXION_AUTOGRAD=$autograd >"$place/folder.log"
cmake --build "$place/folder/build" --target help >"$place/folder.targets"
if grep -qE '(fluxion-tests|example_jacobians)' "$place/folder.targets"; then
  echo "check_install: a project that has the source as a folder would build its tests or examples" >&2
  exit 1
fi
for program in sample derive; do
  [ ! -x "$place/$program" ] || ninja -C "$place/folder/build" "$(ninja -C "$place/folder/build" -t query "$program" | grep -o "CMakeFiles/$program\.dir/.*\.o")"
done

# A build without autograd says so to those who want to train.
mkdir "$place/training"
printf 'cmake_minimum_required(VERSION 3.25)\nproject(training LANGUAGES CXX)\nfind_package(fluxion REQUIRED COMPONENTS training)\n' >"$place/training/CMakeLists.txt"
code=0
cmake -G Ninja -S "$place/training" -B "$place/training/build" -DCMAKE_PREFIX_PATH="$prefix" >"$place/training.log" 2>&1 || code=$?
if [ -x "$place/derive" ]; then
  [ "$code" -eq 0 ]
else
  [ "$code" -ne 0 ]
  grep -q "can't train" "$place/training.log"
fi
# A runtime of another build that is installed beside the libraries replaces what find_package(fluxion) reads first: it is the same file.
cmake -G Ninja -S . -B "$place/runtime" -DFLUXION_RUNTIME_ONLY=ON >"$place/runtime.log"
cmp "$place/runtime/fluxionConfig.cmake" "$(find "$prefix" -name fluxionConfig.cmake)"
echo "check_install: $prefix is used from outside"
