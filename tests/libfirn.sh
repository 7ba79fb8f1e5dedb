#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# libfirn: what is written through it is read again, also when the server is killed in the middle; NBD sees the same
# bytes; a program in C that knows the header alone can use it.
source "$(dirname -- "$0")/lib.sh"
requires jq curl

serve() { start_firn --vhost-user-dir "$tmp/v"; }
bench() { "$firn" bench "$tmp/v/d.sock" --bytes 16M --json "$@"; }
serve
make_disk d 64M
eventually "the socket is there" test -S "$tmp/v/d.sock"

bench --rw write --block 64K --seconds 1 --verify >"$tmp/fill" || fail "filling: $(cat "$tmp/fill")"
same "$(jq .wrong "$tmp/fill")" 0 "blocks that are not what was written"
[[ $(jq .checked "$tmp/fill") -ge 256 ]] || fail "not all of it was written: $(cat "$tmp/fill")"
bench --rw randrw --block 512 --depth 7 --queues 3 --flush-every 50 --seconds 0.5 --verify >"$tmp/small" || fail "$(cat "$tmp/small")"
[[ $(jq .flushes "$tmp/small") -gt 0 ]] || fail "no flush: $(cat "$tmp/small")"

# The plug is pulled in the middle: the client waits, and nothing is lost of what was overwritten in place.
connected() { [[ $(metric 'firn_vhost_connections{disk="d"}') == 1 ]]; }
bench --rw randrw --depth 16 --seconds 4 --seed 9 --verify >"$tmp/killed" 2>"$tmp/wrong" &
client=$!
eventually "it has begun" connected
kill_firn
serve
eventually "it is back" connected
wait "$client" || fail "after kill -9: $(cat "$tmp/killed" "$tmp/wrong")"
same "$(jq .wrong,.errors,.reconnects "$tmp/killed" | xargs)" "0 0 1" "wrong, errors, reconnects"

# A load gathers signals when it is told to.
f disk set d completion=adaptive >/dev/null
bench --rw randread --depth 32 --seconds 1 >"$tmp/gathered" || fail "$(cat "$tmp/gathered")"
refuses 1 'no such file' "$firn" bench "$tmp/nowhere.sock"

if command -v cc >/dev/null && [[ -e ${FIRN_BUILD:-}/src/libfirn.so ]] && ! nm -D "$FIRN_BUILD/src/libfirn.so" | grep -q __asan; then
  cat >"$tmp/use.c" <<'C'
#include <firn.h>
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
  struct firn_channel *channel;
  struct firn_completion done;
  struct firn_request request;
  char *buffer;
  memset(&request, 0, sizeof request);
  if (count != 2 || firn_connect(words[1], NULL, &channel) != 0) return puts(firn_error()), 1;
  request.buffer = buffer = firn_allocate(channel, 4096);
  request.length = 4096;
  request.op = FIRN_WRITE;
  strcpy(buffer, "written in C");
  if (firn_submit(channel, &request) != 0 || firn_wait(channel, &done, 1, -1) != 1 || done.result != 0) return 1;
  firn_disconnect(channel);
  return 0;
}
C
  cc -std=c99 -Wall -Wextra -pedantic -Werror -I"$source_dir/include" "$tmp/use.c" -o "$tmp/use" -L"$FIRN_BUILD/src" -lfirn
  LD_LIBRARY_PATH=$FIRN_BUILD/src "$tmp/use" "$tmp/v/d.sock" || fail "the program in C"
  nbdcopy "$(uri d)" "$tmp/d.raw" 2>/dev/null || qemu-img convert -f raw -O raw "$(uri d)" "$tmp/d.raw"
  same "$(head -c 12 "$tmp/d.raw")" "written in C"
fi
stop_firn
pool_is_clean
