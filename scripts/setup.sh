#!/bin/sh
# Installs what Fluxion needs to build on Debian 12 (or a relative of it): only what is missing, without a question, without a word if nothing is.
#
#   scripts/setup.sh [tests]      tests: also a Vulkan driver that needs no GPU, and the layers that check how Vulkan is used
#   scripts/setup.sh arm64, wasm or windows      what builds the engine for that system, and runs it here
#
# FLUXION_SETUP=no installs nothing and looks for nothing: everything is there.
set -eu

packages="g++ cmake ninja-build pkg-config ccache libtbb-dev libhwy-dev catch2 nlohmann-json3-dev libcli11-dev libstb-dev libjpeg-dev zlib1g-dev libeigen3-dev libvulkan-dev spirv-headers spirv-tools"
engine="g++ cmake ninja-build ccache libhwy-dev libvulkan-dev spirv-headers"
case "${1:-}" in
  tests) packages="$packages libvulkan1 mesa-vulkan-drivers vulkan-validationlayers locales" ;;
  arm64) packages="$engine g++-aarch64-linux-gnu qemu-user-static" ;;
  wasm) packages="$engine emscripten nodejs chromium chromium-driver" ;;
  windows) packages="$engine g++-mingw-w64-x86-64-posix wine64" ;;
  "") ;;
  *)
    echo "setup: there is no '$1'; there are tests, arm64, wasm and windows" >&2
    exit 2
    ;;
esac
[ "${FLUXION_SETUP:-}" != no ] || exit 0

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: this is not a Debian system; install the counterparts of: $packages; then set FLUXION_SETUP=no" >&2
  exit 1
fi

missing=""
for package in $packages; do
  status=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  case "$status" in
    [ih]i*) ;;  # installed; h: and held at its version
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "setup: not root and no sudo; as root, run: apt-get install$missing" >&2
    exit 1
  fi
  as_root="sudo"
fi

echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# $missing and $as_root are lists of words.
# shellcheck disable=SC2086
if ! { $as_root apt-get update -q &&
       $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
  cat "$log" >&2
  echo "setup: apt-get failed; see above" >&2
  exit 1
fi
