# SPDX-License-Identifier: Apache-2.0
"""Disks with snapshots as several servers keep them, behind one interface; all of them serve NBD on a Unix socket.

A store is one server process with one disk. start() makes the disk and serves it; snapshot() freezes it while it is
served; delete() takes a snapshot out, `live` under its clients or with the tool that is made for the disk at rest, and
says what that cost. The `window` in it is when that was, of CLOCK_MONOTONIC in nanoseconds.
"""
import contextlib
import json
import os
import shutil
import subprocess
import time

from clients import Control, Nbd, Qmp
from lib import Server, accepts, allocated, command, io_of, moved


def until_now(begin):
    end = time.monotonic_ns()
    return {"window": (begin, end), "wall_s": (end - begin) / 1e9}


def counted(*words):
    """Runs a tool to its end: its wall time, and what it read from and wrote to devices."""
    begin = time.monotonic()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    text = process.stderr.read().decode()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # Its counters stay until it is reaped.
    cost = {"wall_s": time.monotonic() - begin, **io_of(process.pid)}
    process.stderr.close()
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: status {process.returncode}\n{text}")
    return cost


class Store:
    export = "disk"
    server = None

    def __init__(self, bench, name, size):
        self.build, self.place, self.stem, self.bytes = bench.build, bench.place / name, name, size
        self.socket = self.place / "nbd.sock"

    @contextlib.contextmanager
    def client(self, export=None, sock=None):
        nbd = Nbd(sock or self.socket, self.export if export is None else export)
        try:
            yield nbd
        finally:
            nbd.close()

    def md5(self, begin=0, end=None):
        with self.client() as nbd:
            return nbd.md5(begin, end)

    def flush(self):
        with self.client() as nbd:
            nbd.flush()

    def prepare(self, snapshot):
        """What may be done before a snapshot is asked for."""

    def settle(self):
        """Until nothing is made ready ahead any more."""

    def formatted(self):
        """Bytes written to make space ready, so far."""
        return 0

    def data_written(self):
        """Guest data that the server itself counted as written to its devices, where it counts."""
        return None

    def remove(self):
        if self.server:
            self.server.stop(120)
            self.server = None
        shutil.rmtree(self.place, ignore_errors=True)


class Firn(Store):
    name, label, capacity = "firn", "**firn**", "128G"

    def start(self):
        self.place.mkdir()
        self.pool = self.place / "pool"
        command(self.build / "firn", "pool", "create", self.pool, "--size", self.capacity)
        self.serve()
        self.make(self.export, self.bytes)

    def serve(self):
        self.control = Control(self.pool / "firn.sock")
        self.server = Server([self.build / "firn", "serve", self.pool, "--nbd", f"unix:{self.socket}"],
                             lambda: accepts(self.socket), "firn starting", 120, 0.001)

    def reopen(self):
        """The seconds until a new daemon serves."""
        self.server.stop(120)
        self.serve()
        return self.server.start_seconds

    def make(self, disk, size):
        self.control.post("disks", name=disk, size=size)

    def snapshot(self, name):
        self.control.post("snapshots", name=f"{self.export}@{name}")

    def snapshots(self):
        return len(self.control.get(f"disks/{self.export}/snapshots"))

    def snapshot_md5(self, name):
        with self.client(f"{self.export}@{name}") as nbd:
            return nbd.md5()

    def delete(self, name, live):
        before, metrics, used = self.server.io(), self.control.metrics(), self.used()
        begin = time.monotonic_ns()
        layers = set(self.control.post(f"snapshots/{self.export}@{name}/delete")["layers"])
        answered = time.monotonic_ns()
        while jobs := [job for job in self.control.get("jobs") if job["layer"] in layers]:
            if jobs[0]["state"] == "failed":
                raise RuntimeError(f"deleting a snapshot failed: {jobs[0]['error']}")
            time.sleep(0.002)
        end = time.monotonic_ns()
        after = self.control.metrics()
        grown = lambda sample: after.get(sample, 0) - metrics.get(sample, 0)
        # With clients the server's input and output are theirs as well: only its own counters tell them apart.
        return {"window": (begin, end), "wall_s": (end - begin) / 1e9, "answer_s": (answered - begin) / 1e9,
                "work_s": grown('firn_job_work_seconds_total{kind="layer"}'),
                "data_moved": sum(grown(f'firn_pool_data_{what}_bytes_total{{by="{by}"}}') for what in ("read", "written")
                                  for by in ("consolidate", "shrink")),
                "steps": grown("firn_job_steps_total"), "ended": grown('firn_jobs_ended_total{how="consolidated"}'),
                **({} if live else {"freed_grains": used - self.used(), **moved(before, self.server.io())})}

    def space(self):
        info = self.control.get("pool")
        return info["allocated_bytes"] + info["metadata_pages"] * 4096

    def formatted(self):
        return sum(value for name, value in self.control.metrics().items()
                   if name.startswith("firn_pool_formatted_bytes_total"))

    def settle(self):
        end, last = time.monotonic() + 120, -1
        while last != (last := self.formatted()) and time.monotonic() < end:
            time.sleep(1)

    def used(self):
        return self.control.get("pool")["used_bytes"]

    def metadata_bytes(self):
        return self.control.get("pool")["metadata_pages"] * 4096

    def data_written(self):
        return self.control.metrics()['firn_pool_data_written_bytes_total{by="guest"}']


class Qcow(Store):
    """qemu-storage-daemon with a chain of qcow2 images, without an iothread (Debian 12's aborts with one)."""
    qmp = None

    def __init__(self, bench, name, size, options=()):
        super().__init__(bench, name, size)
        self.options = list(options)

    def start(self):
        self.place.mkdir()
        self.images, self.made = [self.place / "base.qcow2"], 0
        command("qemu-img", "create", "-q", "-f", "qcow2", *self.options, self.images[0], self.bytes)
        self.serve()

    @staticmethod
    def node(number, image, backing):
        return {"driver": "qcow2", "node-name": f"n{number}", "discard": "unmap", "cache": {"direct": True},
                "backing": backing, "file": {"driver": "file", "filename": str(image), "aio": "io_uring",
                                             "discard": "unmap", "cache": {"direct": True}}}

    def serve(self):
        monitor = self.place / "qmp.sock"
        words = ["qemu-storage-daemon", "--chardev", f"socket,id=m,path={monitor},server=on,wait=off",
                 "--monitor", "chardev=m"]
        for number, image in enumerate(self.images):
            words += ["--blockdev", json.dumps(self.node(number, image, f"n{number - 1}" if number else None))]
        words += ["--nbd-server", f"addr.type=unix,addr.path={self.socket}", "--export",
                  f"type=nbd,id=e,node-name=n{len(self.images) - 1},name={self.export},writable=on"]
        self.server = Server(words, lambda: accepts(self.socket), f"{self.name} starting")
        self.qmp, self.made = Qmp(monitor), len(self.images) - 1

    def halt(self):
        self.qmp.close()
        self.server.stop(120)
        self.server = self.qmp = None
        for path in (self.socket, self.place / "qmp.sock"):
            path.unlink(missing_ok=True)

    def top(self):
        return f"n{self.made}"

    @contextlib.contextmanager
    def peek(self, image, *words):
        """The md5 of an image that nobody serves now."""
        sock = self.place / "peek.sock"
        server = Server(["qemu-nbd", "-r", "-f", "qcow2", "-t", "-k", sock, *words, image], lambda: accepts(sock),
                        "qemu-nbd starting")
        try:
            with self.client("", sock) as nbd:
                yield nbd.md5()
        finally:
            server.stop()
            sock.unlink(missing_ok=True)

    def space(self):
        return sum(allocated(image) for image in self.images)

    def remove(self):
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        super().remove()


class Overlay(Qcow):
    """External snapshots: each is a new image over the last one. The image is made and opened before it is needed."""
    name, label = "qcow2-overlay", "qcow2 overlay, opened before"

    def image_of(self, snapshot):
        return self.place / f"over-{snapshot}.qcow2"

    def prepare(self, snapshot):
        image = self.image_of(snapshot)
        command("qemu-img", "create", "-q", "-f", "qcow2", *self.options, "-b", self.images[-1], "-F", "qcow2", image)
        self.qmp.ask("blockdev-add", **self.node(self.made + 1, image, None))

    def snapshot(self, name):
        self.qmp.ask("blockdev-snapshot", node=self.top(), overlay=f"n{self.made + 1}")
        self.made += 1
        self.images.append(self.image_of(name))

    def snapshots(self):
        nodes = self.qmp.ask("query-named-block-nodes", flat=True)
        return sum(1 for node in nodes if node["drv"] == "qcow2") - 1

    def snapshot_md5(self, name):
        """Of the image below the overlay of that name. The server is not needed any more."""
        self.halt()
        with self.peek(self.images[self.images.index(self.image_of(name)) - 1]) as digest:
            return digest

    def delete(self, name, live):
        """The newest overlay goes into what lies below it."""
        assert self.images[-1] == self.image_of(name)
        if live:
            begin = time.monotonic_ns()
            self.qmp.ask("block-commit", job_id="commit", device=self.top(), base_node=f"n{self.made - 1}")
            self.qmp.wait("BLOCK_JOB_READY")
            self.qmp.ask("job-complete", id="commit")
            self.qmp.wait("BLOCK_JOB_COMPLETED")
            cost = until_now(begin)
            self.qmp.ask("blockdev-del", node_name=self.top())
            self.made -= 1
            self.images.pop().unlink()
            return cost
        self.halt()
        cost = counted("qemu-img", "commit", "-q", "-d", "-t", "none", self.images[-1])
        self.images.pop().unlink()
        self.serve()
        return cost


class OverlaySync(Overlay):
    name, label = "qcow2-overlay-sync", "qcow2 overlay, blockdev-snapshot-sync"

    def prepare(self, snapshot):
        pass

    def snapshot(self, name):
        self.qmp.ask("blockdev-snapshot-sync", node_name=self.top(), snapshot_file=str(self.image_of(name)),
                     snapshot_node_name=f"n{self.made + 1}", format="qcow2")
        self.made += 1
        self.images.append(self.image_of(name))


class OverlayEl2(Overlay):
    name, label = "qcow2-overlay-el2", "qcow2 overlay, extended_l2"

    def __init__(self, bench, name, size):
        super().__init__(bench, name, size, ["-o", "extended_l2=on,cluster_size=128k"])


class Internal(Qcow):
    """Snapshots inside the image, which copy whole clusters when they are written to."""
    name, label = "qcow2-internal", "qcow2 internal snapshot"

    def snapshot(self, name):
        self.qmp.ask("blockdev-snapshot-internal-sync", device=self.top(), name=name)

    def listed(self):
        text = command("qemu-img", "info", "-U", "--output=json", self.images[0])
        return json.loads(text).get("snapshots", [])

    def snapshots(self):
        return len(self.listed())

    def snapshot_md5(self, name):
        self.halt()
        with self.peek(self.images[0], "-l", name) as digest:
            return digest

    def delete(self, name, live):
        if live:
            begin = time.monotonic_ns()
            self.qmp.ask("blockdev-snapshot-delete-internal-sync", device=self.top(), name=name)
            return until_now(begin)
        self.halt()
        cost = counted("qemu-img", "snapshot", "-q", "-d", name, self.images[0])
        self.serve()
        return cost
