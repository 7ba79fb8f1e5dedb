#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A socket that somebody else opened (LISTEN_FDS, as systemd does it) is served; readiness is told to NOTIFY_SOCKET.
source "$(dirname -- "$0")/lib.sh"
requires python3 nbdinfo

make_pool
make_disk d 64M
python3 - "$firn" "$pool" "$sock" "$tmp/notify" "$tmp/pid" >"$tmp/notified" 2>"$tmp/firn.log" <<'PY' &
import os, socket, sys
firn, pool, path, notify, pid_file = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ear.bind(notify)
child = os.fork()
if child == 0:
    if listener.fileno() == 3:
        os.set_inheritable(3, True)
    else:
        os.dup2(listener.fileno(), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=notify)
    os.execv(firn, [firn, "serve", pool])
listener.close()
open(pid_file, "w").write(str(child))
while True:
    said = ear.recv(4096).decode()
    print(said, flush=True)
    if "READY=1" in said:
        break
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("status", status, flush=True)
PY
helper=$!
eventually "READY=1" grep -q READY=1 "$tmp/notified"
same "$(nbdinfo --size "$(uri d)")" $((64 << 20)) "size over the inherited socket"
kill -TERM "$(cat "$tmp/pid")"
wait "$helper"
grep -q '^status 0$' "$tmp/notified" || fail "$(cat "$tmp/notified")"
