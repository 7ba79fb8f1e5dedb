#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What curl sees: /healthz and /metrics on --http, and the control socket, which speaks HTTP over the pool's Unix socket.
source "$(dirname -- "$0")/lib.sh"
requires curl jq nbdinfo qemu-io python3

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start_firn --http "127.0.0.1:$port"
make_disk d 64M
must d 'write -P 1 0 1M' flush
curl -fsS "http://127.0.0.1:$port/healthz" >/dev/null
curl -fsS "http://127.0.0.1:$port/metrics" >"$tmp/metrics"
grep -q '^# TYPE firn_' "$tmp/metrics" || fail "no metrics: $(head -n 5 "$tmp/metrics")"
# Each sample is a name, labels, a number; each family is described before its first sample, once.
python3 - "$tmp/metrics" <<'PY'
import re, sys
described, seen = set(), set()
for line in open(sys.argv[1]):
    line = line.rstrip("\n")
    if match := re.match(r"# TYPE (firn_[a-z0-9_]+) (counter|gauge|histogram)$", line):
        assert match[1] not in described, f"described twice: {line}"
        described.add(match[1])
    elif not line.startswith("#"):
        match = re.match(r"(firn_[a-z0-9_]+)(\{[^}]*\})? -?[0-9.e+-]+$", line)
        assert match, f"no sample: {line}"
        family = re.sub(r"_(bucket|sum|count)$", "", match[1])
        assert {match[1], family} & described, f"not described: {line}"
        assert match[1] + str(match[2]) not in seen, f"twice: {line}"
        seen.add(match[1] + str(match[2]))
assert len(described) >= 10, described
PY
same "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/nothing")" 404 "status of a page that is none"
[[ -S $pool/firn.sock ]] || fail "no control socket"
same "$(stat -c %a "$pool/firn.sock")" 600 "who may speak to the control socket"
stop_firn
