# SPDX-License-Identifier: Apache-2.0
# Sourced by every script beside it: strict mode, the root of the tree, one way to speak and to fail.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# configure PRESET: once; later changes of CMake files are noticed by the build itself.
configure() {
  local preset=$1
  [[ -f build/$preset/build.ninja ]] || cmake --preset "$preset" >"$(log_of "$preset" configure)" 2>&1 ||
    { cat "$(log_of "$preset" configure)" >&2; die "configuring preset '$preset' failed"; }
}

# build PRESET [TARGET...]: quiet when all is well, the compiler's words when not.
build() {
  local preset=$1 log
  shift
  configure "$preset"
  log=$(log_of "$preset" build)
  say "building preset '$preset' with $(nproc) jobs: ${*:-everything}"
  cmake --build "build/$preset" --parallel "$(nproc)" ${1:+--target "$@"} >"$log" 2>&1 || {
    grep -vE '^\[[0-9]+/[0-9]+\] ' "$log" | tail -n 60 >&2
    die "the build failed; all of it is in $log"
  }
}

log_of() {
  mkdir -p "build/$1"
  printf 'build/%s/%s.log' "$1" "$2"
}
