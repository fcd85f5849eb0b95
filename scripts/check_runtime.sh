#!/bin/sh
# Checks the runtime library as an application gets it: installs it alone, moves it, builds the C example with CMake, with pkg-config, against the
# static library and as a folder of another project, and compares what each draws. Says how large it is and what it needs.
# Usage: scripts/check_runtime.sh BUILD_FOLDER GENERATOR.fxn, after the folder's targets are built.
set -eu
cd "$(dirname "$0")/.."
build=$1
generator=$(realpath "$2")
place=$build/check-runtime
rm -rf "$place"
mkdir -p "$place"
place=$(realpath "$place")
source=$PWD

cmake --install "$build" --component runtime --prefix "$place/first" --strip >"$place/install.log"
mv "$place/first" "$place/moved"
prefix=$place/moved
if grep -rIlF -e "$place/first" -e "$source/" "$prefix"; then
  echo "check_runtime: these files name the folder they were built in or installed to" >&2
  exit 1
fi
# (One test a line: of `a && b`, `set -e` sees the last alone.)
[ ! -e "$prefix/include/fluxion" ]
[ ! -e "$prefix/bin" ]
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name fluxion-runtime.pc)")
export PKG_CONFIG_PATH
libraries=$(dirname "$PKG_CONFIG_PATH")

# A copy of the example needs nothing beside it; programs find the library without a variable of the environment.
cp -r examples/embed/c "$place/copy"
cmake -S "$place/copy" -B "$place/cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$place/cmake.log"
cmake --build "$place/cmake" >>"$place/cmake.log"
# pkg-config's answers are words for a shell.
eval "set -- $(pkg-config --cflags --libs fluxion-runtime)"
cc -std=c99 -pedantic -Wall -Wextra -Werror "$place/copy/picture.c" -o "$place/pkg-config" "$@" -Wl,-rpath,"$libraries"
cc -std=c99 -I"$prefix/include" "$place/copy/picture.c" -o "$place/static" "$libraries/libfluxion-runtime.a" -lstdc++ -lm -ldl -pthread
"$place/cmake/picture" "$generator" "$place/cmake.png" 3
"$place/pkg-config" "$generator" "$place/pkg-config.png" 3
"$place/static" "$generator" "$place/static.png" 3
cmp "$place/cmake.png" "$place/pkg-config.png"
cmp "$place/cmake.png" "$place/static.png"
# A class that the generator has not, or a seed that is no number, is refused.
for wrong in "3 nothing" "3 1e9" "seed"; do
  # shellcheck disable=SC2086 # two words
  if "$place/static" "$generator" "$place/wrong.png" $wrong 2>"$place/wrong.err" || [ -e "$place/wrong.png" ]; then
    echo "check_runtime: the example draws for '$wrong'" >&2
    exit 1
  fi
done
# Who asks for the C++ libraries hears that they are not there.
mkdir "$place/asks"
printf 'cmake_minimum_required(VERSION 3.20)\nproject(asks LANGUAGES C)\nfind_package(fluxion REQUIRED)\n' >"$place/asks/CMakeLists.txt"
if cmake -S "$place/asks" -B "$place/asks/build" -DCMAKE_PREFIX_PATH="$prefix" >"$place/asks.log" 2>&1 || ! tr -s ' \n' ' ' <"$place/asks.log" | grep -q "COMPONENTS runtime"; then
  echo "check_runtime: find_package(fluxion) of the runtime alone does not say what there is" >&2
  exit 1
fi
# Who asks for what no installation has hears what there is.
mkdir "$place/unknown"
printf 'cmake_minimum_required(VERSION 3.20)\nproject(unknown LANGUAGES C)\nfind_package(fluxion REQUIRED COMPONENTS runtime pictures)\n' >"$place/unknown/CMakeLists.txt"
if cmake -S "$place/unknown" -B "$place/unknown/build" -DCMAKE_PREFIX_PATH="$prefix" >"$place/unknown.log" 2>&1 || ! tr -s ' \n' ' ' <"$place/unknown.log" | grep -q "no component 'pictures'"; then
  echo "check_runtime: find_package(fluxion) does not say that there is no component 'pictures'" >&2
  exit 1
fi
# The example of an application's own VkDevice, where there is a loader to link and a device.
if pkg-config --exists vulkan; then
  cmake -S examples/embed/vulkan -B "$place/vulkan" -DCMAKE_PREFIX_PATH="$prefix" >"$place/vulkan.log"
  cmake --build "$place/vulkan" >>"$place/vulkan.log"
  FLUXION_VULKAN_CACHE="" "$place/vulkan/vulkan" "$generator" "$place/vulkan.png" 3 2>"$place/vulkan.err" || grep -q "no device" "$place/vulkan.err" || { cat "$place/vulkan.err" >&2; exit 1; }
fi
code=0
"$place/static" "$place/cmake.png" "$place/none.png" 2>"$place/refused.log" || code=$?
[ "$code" -eq 1 ]
grep -q "cmake.png" "$place/refused.log"
# f64, which no exported sampler has: a build of the runtime alone has no kernels for it, and says so.
code=0
"$place/static" tests/embed/golden/wide-image.fxn "$place/wide.png" 2>"$place/wide.log" || code=$?
if grep -q '^FLUXION_RUNTIME_ONLY:BOOL=ON' "$build/CMakeCache.txt" && ! grep -q '^FLUXION_TESTS:BOOL=ON' "$build/CMakeCache.txt"; then
  [ "$code" -eq 1 ]
  grep -q "can't compute with f64: convert to f32" "$place/wide.log"
else
  [ "$code" -eq 0 ]
fi

# C++ without exceptions may include the C API, C++17 the wrapper.
echo '#include <fluxion.h>' >"$place/plain.cpp"
c++ -std=c++11 -fno-exceptions -Wall -Wextra -Werror -pedantic -fsyntax-only -I"$prefix/include" "$place/plain.cpp"
echo '#include <fluxion.hpp>' >"$place/wrapped.cpp"
c++ -std=c++17 -Wall -Wextra -Werror -pedantic -fsyntax-only -I"$prefix/include" "$place/wrapped.cpp"
if command -v python3 >/dev/null 2>&1; then
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$prefix/share/fluxion/python python3 -c "
import fluxion, sys
generator = fluxion.Generator(sys.argv[1])
assert len(generator.generate(count=2, seed=3).tobytes()) > 0" "$generator"
fi

# As a folder of another project, which has an engine/ and an option CCACHE of its own, and C++ without exceptions. (One file of each is compiled.)
mkdir -p "$place/inside/engine"
echo '#error "this is the application'"'"'s own"' >"$place/inside/engine/error.h"
cat >"$place/inside/private.cpp" <<'EOF'
#include <fluxion.h>
#if __has_include("handles.h") || __has_include("generator.h") || __has_include("engine/device.h")
#error "an application sees private headers"
#endif
EOF
cat >"$place/inside/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(inside C CXX)
option(CCACHE "The application's own" ON)
include_directories(.)
set(CMAKE_CXX_FLAGS "-fno-exceptions -fno-rtti")
set(FLUXION_RUNTIME_ONLY ON)
set(FLUXION_UNITY OFF)
add_subdirectory("$source" fluxion)
add_executable(picture "$source/examples/embed/c/picture.c" private.cpp)
target_link_libraries(picture fluxion::runtime)
EOF
cmake -G Ninja -S "$place/inside" -B "$place/inside/build" >"$place/inside.log"
ninja -C "$place/inside/build" CMakeFiles/picture.dir/private.cpp.o fluxion/CMakeFiles/fluxion_engine.dir/engine/error.cpp.o >>"$place/inside.log"

# Folders given as absolute paths stay where they are.
cmake -G Ninja -S . -B "$place/absolute" -DFLUXION_RUNTIME_ONLY=ON -DCMAKE_INSTALL_LIBDIR=/one/lib -DCMAKE_INSTALL_INCLUDEDIR=/two/include >"$place/absolute.log"
for variable in libdir=/one/lib includedir=/two/include; do
  [ "$(PKG_CONFIG_PATH=$place/absolute pkg-config --variable="${variable%%=*}" fluxion-runtime)" = "${variable#*=}" ]
done

library=$libraries/libfluxion-runtime.so
needs=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
shown=$(nm -D --defined-only "$library" | wc -l)
bytes=$(stat -Lc %s "$library")
echo "check_runtime: $bytes bytes, $shown names, needs ${needs}"
# What docs/embedding.md says, of a build of the runtime alone.
if grep -q '^FLUXION_RUNTIME_ONLY:BOOL=ON' "$build/CMakeCache.txt" && grep -q '^CMAKE_BUILD_TYPE:STRING=Release' "$build/CMakeCache.txt" && [ "$bytes" -gt 2000000 ]; then
  echo "check_runtime: the library has more than 2,000,000 bytes" >&2
  exit 1
fi
