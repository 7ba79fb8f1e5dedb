# SPDX-License-Identifier: Apache-2.0
# Sourced by every black-box test: a scratch directory, servers that are ours, and an end that leaves nothing behind.
#
# A test: requires the tools it needs (else it ends with 77: this machine cannot), start_firn, one action by
# somebody else's tool, one check. FIRN names the program; ctest sets it, by hand it is build/release/firn.
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
firn=${FIRN:-$source_dir/build/release/firn}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/firn-test-XXXXXX")
pool=$tmp/pool
sock=$tmp/nbd.sock
firn_pid=
endings=()

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "FAILED: $*"
  exit 1
}
# at_exit COMMAND...: run at the end, whatever the end is; the last one said is the first one run.
at_exit() { endings+=("$(printf '%q ' "$@")"); }
finish() {
  local status=$? i
  trap - EXIT
  set +e
  for ((i = ${#endings[@]} - 1; i >= 0; i--)); do eval "${endings[i]}" >/dev/null 2>&1; done
  [[ -z $firn_pid ]] || kill -9 "$firn_pid" 2>/dev/null
  [[ $status -eq 0 || $status -eq 77 || ! -s $tmp/firn.log ]] || { say "--- the server's last words"; tail -n 40 "$tmp/firn.log" >&2; }
  [[ -n ${FIRN_KEEP:-} ]] || rm -rf -- "$tmp"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# requires TOOL...: commands, or paths that must exist.
requires() {
  local tool
  for tool in "$@"; do
    if [[ $tool == /* ]]; then
      [[ -e $tool ]] || { say "skipped: no $tool here"; exit 77; }
    else
      command -v "$tool" >/dev/null || { say "skipped: no $tool here"; exit 77; }
    fi
  done
  [[ -x $firn ]] || fail "no program at $firn: build it, or set FIRN"
}
requires_root() { [[ $EUID -eq 0 ]] || { say "skipped: needs root"; exit 77; }; }

# eventually WHAT COMMAND...: until the command succeeds; a test fails after 60 s, and never succeeds by waiting.
eventually() {
  local what=$1 end=$((SECONDS + 60))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "not within 60 s: $what"
    sleep 0.05
  done
}

# refuses STATUS PATTERN COMMAND...: it ends with this status and says, in one line on stderr, what PATTERN wants.
refuses() {
  local wanted=$1 pattern=$2 status=0
  shift 2
  local guard=(timeout 60) # What is not refused may go on for ever.
  [[ $(type -t "$1") != function ]] || guard=()
  "${guard[@]}" "$@" >"$tmp/refusal.out" 2>"$tmp/refusal" || status=$?
  [[ $status -eq $wanted ]] || fail "status $status, not $wanted: $* ($(cat "$tmp/refusal"))"
  grep -qiE -- "$pattern" "$tmp/refusal" || fail "'$*' does not say '$pattern' but: $(cat "$tmp/refusal")"
  [[ $wanted -ne 1 || $(wc -l <"$tmp/refusal") -eq 1 ]] || fail "'$*' says more than a line: $(cat "$tmp/refusal")"
}

same() { [[ $1 == "$2" ]] || fail "${3:-values differ}: '$1', expected '$2'"; }

make_pool() { "$firn" pool create "$pool" --size "${1:-8G}" >/dev/null; }

firn_answers() { kill -0 "$firn_pid" 2>/dev/null || fail "the server ended"; nbdinfo --list "nbd+unix://?socket=$sock" >/dev/null 2>&1; }

# start_firn [SERVE OPTIONS...]: on the pool, made when missing; returns when it answers on $sock.
start_firn() {
  [[ -e $pool ]] || make_pool
  "$firn" serve "$pool" --nbd "unix:$sock" "$@" >>"$tmp/firn.log" 2>&1 &
  firn_pid=$!
  eventually "the server answers" firn_answers
}
# stop_firn: SIGTERM, and an exit status that must be 0.
stop_firn() {
  local status=0
  kill -TERM "$firn_pid"
  wait "$firn_pid" || status=$?
  firn_pid=
  same "$status" 0 "exit status after SIGTERM"
}
# kill_firn: the plug is pulled.
kill_firn() {
  kill -9 "$firn_pid"
  wait "$firn_pid" 2>/dev/null || true
  firn_pid=
  rm -f "$sock"
}
# pool_is_clean: offline, everything accounted for.
pool_is_clean() {
  "$firn" pool check "$pool" >"$tmp/check" 2>&1 || fail "pool check: $(cat "$tmp/check")"
}

# f COMMAND...: firn on the pool of the test.
f() { "$firn" --pool "$pool" "$@"; }
# metric 'NAME{LABELS}': its value now, 0 when there is no such sample.
metric() {
  curl -fsS --unix-socket "$pool/firn.sock" http://firn/metrics | awk -v name="$1" '$1 == name {value = $2} END {print value + 0}'
}
used_bytes() { "$firn" pool info "$pool" --json | jq .used_bytes; }
mapped_bytes() { "$firn" --pool "$pool" disk info "$1" --json | jq .mapped_bytes; }
has_data() { [[ $(mapped_bytes "$1") -gt 0 ]]; }
make_disk() { "$firn" --pool "$pool" disk create "$1" --size "$2" >/dev/null; }
uri() { printf 'nbd+unix:///%s?socket=%s' "$1" "$sock"; }

# some_bytes COUNT SEED: the same bytes each time, incompressible. COUNT in bytes.
some_bytes() { openssl enc -aes-128-ctr -K "$(printf '%032x' "$2")" -iv 0 -in /dev/zero 2>/dev/null | head -c "$1" || true; }
sum_of() { sha256sum "$1" | cut -d' ' -f1; }

# disk_io DISK COMMAND...: qemu-io's commands on a disk; fails when any of them fails or reads what was not expected.
# What it said is in $tmp/io.
disk_io() {
  local disk=$1 words=() word status=0
  shift
  for word in "$@"; do words+=(-c "$word"); done
  qemu-io -f raw "${words[@]}" "$(uri "$disk")" >"$tmp/io" 2>&1 || status=$?
  [[ $status -eq 0 ]] && ! grep -qiE 'failed|error|mismatch' "$tmp/io"
}
# must DISK COMMAND...: the same, and the test fails with what it said.
must() { disk_io "$@" || fail "qemu-io on $*: $(head -n 5 "$tmp/io")"; }
