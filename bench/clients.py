# SPDX-License-Identifier: Apache-2.0
"""Three small clients for the benchmarks: firn's control socket, QEMU's monitor, NBD.

One connection stays open where the protocol allows it, so that a measured round trip is the server's work and not the
start of a process. They share no code with what they measure, and check what they are told.
"""
import hashlib
import http.client
import json
import socket
import struct


class Control:
    """firn's control socket: one request per connection, as docs/reference/control.md says."""

    class Connection(http.client.HTTPConnection):
        def __init__(self, path):
            super().__init__("firn", timeout=120)
            self.path = str(path)

        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.path)

    def __init__(self, path):
        self.path = path

    def text(self, method, target, body=None):
        connection = self.Connection(self.path)
        try:
            connection.request(method, target, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise RuntimeError(f"{method} {target}: {answer.status} {text}")
            return text
        finally:
            connection.close()

    def get(self, what):
        return json.loads(self.text("GET", f"/api/v1/{what}"))

    def post(self, what, **body):
        return json.loads(self.text("POST", f"/api/v1/{what}", body))

    def metrics(self):
        """Samples as {"name{labels}": value}."""
        lines = [line.rsplit(" ", 1) for line in self.text("GET", "/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(600)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self.lines.readline()  # The greeting.
        self.ask("qmp_capabilities")

    def message(self):
        line = self.lines.readline()
        if not line:
            raise RuntimeError("the monitor hung up")
        return json.loads(line)

    def ask(self, command, **arguments):
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self.message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise RuntimeError(f"{command}: {message['error']['desc']}")
            self.events.append(message)

    def wait(self, name):
        """For an event, and its data. Jobs that fail end the wait, too."""
        while True:
            event = self.events.pop(0) if self.events else self.message()
            data = event.get("data", {})
            if event.get("event") == "BLOCK_JOB_ERROR" or "error" in data:
                raise RuntimeError(f"waiting for {name}: {data}")
            if event.get("event") == name:
                return data

    def close(self):
        self.lines.close()
        self.socket.close()


class Nbd:
    """Enough of NBD to write a block, to flush, and to hash a range."""
    PIECE = 1 << 20
    AHEAD = 4

    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(600)
        self.socket.connect(str(path))
        magic, option, flags = struct.unpack(">8sQH", self.take(18))
        if magic != b"NBDMAGIC" or option != 0x49484156454F5054:
            raise RuntimeError("the server does not speak newstyle NBD")
        name = export.encode()
        self.socket.sendall(struct.pack(">IQII", flags & 3, option, 1, len(name)) + name)
        self.bytes, _ = struct.unpack(">QH", self.take(10))
        if not flags & 2:
            self.take(124)

    def take(self, count):
        buffer = bytearray(count)
        view, at = memoryview(buffer), 0
        while at < count:
            got = self.socket.recv_into(view[at:])
            if got == 0:
                raise RuntimeError("the NBD server hung up; is there such an export?")
            at += got
        return buffer

    def send(self, kind, at, length, data=b""):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, at, at, length) + data)

    def reply(self, at):
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        if magic != 0x67446698 or handle != at or error != 0:
            raise RuntimeError(f"NBD request at {at}: error {error}, handle {handle}, magic {magic:08x}")

    def write(self, at, data):
        self.send(1, at, len(data), data)
        self.reply(at)

    def flush(self):
        self.send(3, 0, 0)
        self.reply(0)

    def read_all(self, begin, end):
        """Pieces of the range in order, several requests ahead. Replies may come in any order."""
        waiting, here = [], {}
        at = begin
        while at < end or waiting:
            while at < end and len(waiting) < self.AHEAD:
                length = min(self.PIECE, end - at)
                self.send(0, at, length)
                waiting.append((at, length))
                at += length
            first, _ = waiting[0]
            while first not in here:
                magic, error, handle = struct.unpack(">IIQ", self.take(16))
                length = dict(waiting).get(handle)
                if magic != 0x67446698 or error != 0 or length is None:
                    raise RuntimeError(f"NBD read at {handle}: error {error}")
                here[handle] = self.take(length)
            waiting.pop(0)
            yield here.pop(first)

    def md5(self, begin=0, end=None):
        digest = hashlib.md5()
        for piece in self.read_all(begin, self.bytes if end is None else end):
            digest.update(piece)
        return digest.hexdigest()

    def close(self):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
        self.socket.close()
