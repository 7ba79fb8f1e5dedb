#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P7: noise, cut handshakes, absurd lengths, wrap-arounds, and a client that never reads: each costs itself its
# connection at most. A well-behaved client beside them sees nothing.
source "$(dirname -- "$0")/lib.sh"
requires python3 nbdinfo qemu-io

start_firn
make_disk d 64M
must d 'write -P 5 0 64M' flush
python3 - "$sock" <<'PY' || fail "a hostile client got what it should not"
import os, random, socket, struct, sys

path = sys.argv[1]
dice = random.Random(1)

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(path)
    return s

def take(s, count):
    data = b""
    while len(data) < count:
        got = s.recv(count - len(data))
        assert got, "hung up"
        data += got
    return data

def option(number, payload=b"", length=None):
    return struct.pack(">8sII", b"IHAVEOPT", number, len(payload) if length is None else length) + payload

def hello():
    s = connect()
    assert take(s, 18)[:16] == b"NBDMAGICIHAVEOPT"
    s.sendall(struct.pack(">I", 3))
    return s

def go(name=b"d"):
    s = hello()
    s.sendall(option(7, struct.pack(">I", len(name)) + name + struct.pack(">H", 0)))
    while True:
        _, _, kind, length = struct.unpack(">QIII", take(s, 20))
        take(s, length)
        if kind == 1:
            return s
        assert kind == 3, hex(kind)

def request(command, offset, length, cookie=7, flags=0, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)

def reply(s):
    magic, error, cookie = struct.unpack(">IIQ", take(s, 16))
    assert magic == 0x67446698 and cookie == 7, (hex(magic), cookie)
    return error

def send_quietly(s, data):
    try:
        s.sendall(data)
    except OSError:
        pass  # The server may hang up on noise; it may not fall over.

# Noise and cut handshakes.
for length in (0, 1, 3, 17, 18, 19, 100, 5000):
    for talk in (connect, hello):
        s = talk()
        send_quietly(s, dice.randbytes(length))
        s.close()
for option_length in (0xffffffff, 0x7fffffff, 1 << 20):
    s = hello()
    send_quietly(s, option(7, b"x" * 10, option_length))
    s.close()
# A name length beyond its option, an unknown option, an export that is none: an error reply, and the talk goes on.
s = hello()
for payload in (struct.pack(">I", 0xfffffff0) + b"d\0\0", b"", b"\0", struct.pack(">I", 4) + b"none" + b"\0\0"):
    s.sendall(option(7, payload))
    magic, number, kind, length = struct.unpack(">QIII", take(s, 20))
    take(s, length)
    assert kind & 0x80000000, hex(kind)
s.sendall(option(0x1234))
assert struct.unpack(">QIII", take(s, 20))[2] == 0x80000001
s.close()
# Requests: past the end, wrapping around 2^64, too long, unknown. Errors, on a connection that goes on.
size = 64 << 20
s = go()
for command, offset, length in ((0, size, 512), (0, size - 512, 1024), (0, 2**64 - 512, 1024), (0, 2**63, 4096),
                                (4, size, 4096), (4, 2**64 - 4096, 8192), (6, size - 1, 2), (99, 0, 0)):
    s.sendall(request(command, offset, length))
    assert reply(s) in (22, 28, 95), (command, offset, length)
s.sendall(request(0, 0, 512))
assert reply(s) == 0 and take(s, 512) == b"\5" * 512
# A write past the end: its payload is passed over, and the next request is understood.
s.sendall(request(1, size, 4096) + b"x" * 4096 + request(0, 512, 512))
assert reply(s) in (22, 28)
assert reply(s) == 0 and take(s, 512) == b"\5" * 512
# Length zero; a magic that is wrong ends the connection.
s.sendall(request(0, 0, 0xffffffff))
s.close()
s = go()
send_quietly(s, request(0, 0, 512, magic=0xdeadbeef))
try:
    assert s.recv(16) == b""
except ConnectionResetError:
    pass
s.close()

# Clients that ask for much and never read, clients that stop in the middle of a write.
deaf = []
for _ in range(8):
    s = go()
    s.setblocking(False)
    try:
        for _ in range(2000):
            s.send(request(0, 0, 1 << 20))
    except BlockingIOError:
        pass
    deaf.append(s)
for _ in range(8):
    s = go()
    s.sendall(request(1, 0, 1 << 20) + b"\5" * 1000)
    deaf.append(s)
# Meanwhile somebody honest works at ease.
s = go()
for number in range(2000):
    s.sendall(request(0, dice.randrange(size - 4096) & ~511, 4096))
    assert reply(s) == 0 and take(s, 4096) == b"\5" * 4096
for s in deaf:
    s.close()
PY
kill -0 "$firn_pid" || fail "the server fell over"
must d 'read -P 5 0 64M'
rss=$(awk '/^VmHWM/ {print $2}' "/proc/$firn_pid/status")
((rss < 512 << 10)) || fail "hostile clients made the server take $rss KiB"
stop_firn
pool_is_clean
