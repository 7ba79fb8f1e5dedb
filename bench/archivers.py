# SPDX-License-Identifier: Apache-2.0
"""Archives of disk images as several tools keep them, behind one interface.

An archiver has a repository of its own. push() puts one image of the set into it, restore() brings it back, remove()
deletes snapshots, and each says what that cost: wall seconds, CPU seconds of all processes that took part, and the
most memory that its own process ever had. Firn pushes from a pool, through its daemon, whose CPU counts; the others
read the image, which lies in the page cache.
"""
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from clients import Control, Nbd
from lib import Server, accepts, command

# Name, and what a disk of firn's pool and its snapshot is called; the change is a snapshot of the clone's disk.
IMAGES = {"base": "base@a", "clone": "clone@a", "change": "clone@b", "other": "other@a"}


class Memory(threading.Thread):
    """The most that a process had resident, by looking: the last look is at most 5 ms before its end."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.kib, self.over = pid, 0, False

    def run(self):
        while not self.over:
            try:
                with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
                    for line in status:
                        if line.startswith("VmHWM:"):
                            self.kib = max(self.kib, int(line.split()[1]))
            except OSError:
                return
            time.sleep(0.005)


def cost_of(*words, env=None, cwd=None, statuses=(0,)):
    """Runs a command to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.monotonic()
        process = subprocess.Popen([str(w) for w in words], stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env,
                                   cwd=cwd)
        memory = Memory(process.pid)
        memory.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - begin
        memory.over = True
        memory.join()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
        if process.returncode not in statuses:
            err.seek(0)
            raise RuntimeError(f"{' '.join(map(str, words))}: status {process.returncode}\n{text}"
                               f"{err.read().decode(errors='replace')}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": memory.kib / 1024, "text": text}


def sum_of(costs):
    costs = list(costs)
    return {"wall_s": sum(c["wall_s"] for c in costs), "cpu_s": sum(c["cpu_s"] for c in costs),
            "peak_mib": max(c["peak_mib"] for c in costs)}


def bytes_below(place):
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(place) for name in names)


def flushed(path):
    """Seconds until what was written to the file is on the device."""
    begin = time.monotonic()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return time.monotonic() - begin


class Archiver:
    """`images` says where each one's raw file lies."""

    def __init__(self, bench, place):
        self.bench, self.place, self.images = bench, place, bench.images
        self.repository, self.back = place / "repository", place / "back.raw"

    def stored(self):
        return bytes_below(self.repository)

    def run(self, *words, **more):
        return cost_of(*words, env=self.environment(), **more)

    def environment(self):
        return {**os.environ, "HOME": str(self.place), "LC_ALL": "C.UTF-8"}

    def durable(self, cost):
        cost["flush_s"] = flushed(self.back)
        return cost

    def compare(self, image):
        command("cmp", self.back, self.images[image])

    def forget(self):
        self.back.unlink(missing_ok=True)

    def discard(self):
        shutil.rmtree(self.place, ignore_errors=True)


class Borg(Archiver):
    chunker = "buzhash,19,23,21,4095"
    name, label = "borg-buzhash", "borg, buzhash"

    def create(self):
        self.run("borg", "init", "-e", "none", self.repository)

    def environment(self):
        return {**super().environment(), "BORG_BASE_DIR": str(self.place / "borg"),
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def push(self, image):
        return self.run("borg", "create", "--compression", "lz4", "--chunker-params", self.chunker, "--files-cache",
                        "disabled", f"{self.repository}::{image}", self.images[image].name, cwd=self.images[image].parent)

    def restore(self, image):
        cost = self.run("borg", "extract", "--sparse", f"{self.repository}::{image}", cwd=self.place)
        (self.place / self.images[image].name).rename(self.back)
        return self.durable(cost)

    def remove(self, images):
        return self.run("borg", "delete", self.repository, *images)

    def clean(self):
        return self.run("borg", "compact", "--threshold", "0", self.repository)

    def verify(self):
        return self.run("borg", "check", "--verify-data", self.repository)

    def look(self):
        """Checksums of what is stored alone: what a scrub reads."""
        return self.run("borg", "check", "--repository-only", self.repository)


class BorgFixed(Borg):
    chunker = "fixed,4194304"
    name, label = "borg-fixed", "borg, fixed 4 MiB"


class Restic(Archiver):
    name, label = "restic", "restic, encrypted"

    def environment(self):
        return {**super().environment(), "RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(self.repository),
                "RESTIC_CACHE_DIR": str(self.place / "cache")}

    def create(self):
        self.ids = {}
        self.run("restic", "init", "--repository-version", "2")

    def push(self, image):
        cost = self.run("restic", "backup", "--json", self.images[image].name, cwd=self.images[image].parent)
        self.ids[image] = json.loads(cost["text"].splitlines()[-1])["snapshot_id"]
        return cost

    def restore(self, image):
        into = self.place / "restored"
        cost = self.run("restic", "restore", self.ids[image], "--target", into)
        (into / self.images[image].name).rename(self.back)
        return self.durable(cost)

    def remove(self, images):
        return self.run("restic", "forget", *[self.ids[image] for image in images])

    def clean(self):
        return self.run("restic", "prune")

    def verify(self):
        return self.run("restic", "check", "--read-data")


class Casync(Archiver):
    name, label = "casync", "casync, 64 KiB, zstd"

    def create(self):
        self.repository.mkdir()

    def index(self, image):
        return self.repository / f"{image}.caibx"

    def words(self):
        return [f"--store={self.repository / 'store.castr'}", "--compression=zstd", "--chunk-size=64K"]

    def push(self, image):
        return self.run("casync", "make", *self.words(), self.index(image), self.images[image])

    def restore(self, image):
        return self.durable(self.run("casync", "extract", *self.words(), self.index(image), self.back))

    def remove(self, images):
        begin = time.monotonic()
        for image in images:
            self.index(image).unlink()
        return {"wall_s": time.monotonic() - begin, "cpu_s": 0, "peak_mib": 0}

    def clean(self):
        return self.run("casync", "gc", *self.words(), *sorted(self.repository.glob("*.caibx")))


class Pool:
    """The images as disks of a pool, with a daemon that serves them: made once, pushed in each round."""

    def __init__(self, bench, place):
        self.firn, self.pool, self.socket = bench.build / "firn", place / "pool", place / "nbd.sock"
        command(self.firn, "pool", "create", self.pool, "--size", "64G")
        self.control = Control(self.pool / "firn.sock")
        for image in ("base", "clone", "other"):
            self.ask("disk", "import", image, bench.images[image])
        self.serve()
        self.ask("snapshot", "create", "base@a")
        self.ask("snapshot", "create", "other@a")
        self.ask("snapshot", "create", "clone@a")
        self.changed = self.write_change(bench)
        self.ask("snapshot", "create", "clone@b")

    def ask(self, *words):
        return command(self.firn, "--pool", self.pool, *words)

    def serve(self, env=None):
        self.server = Server([self.firn, "serve", self.pool, "--nbd", f"unix:{self.socket}"],
                             lambda: accepts(self.socket), "firn starting", 120, env=env)

    def write_change(self, bench):
        """The clone becomes the change: blocks of 4 KiB that differ are written, as its guest would have. How many bytes."""
        nbd, changed = Nbd(self.socket, "clone"), 0
        with open(bench.images["clone"], "rb") as before, open(bench.images["change"], "rb") as after:
            at = 0
            while new := after.read(1 << 20):
                old = before.read(1 << 20)
                for i in range(0, len(new), 4096) if old != new else ():
                    if old[i:i + 4096] != new[i:i + 4096]:
                        nbd.write(at + i, new[i:i + 4096])
                        changed += len(new[i:i + 4096])
                at += len(new)
        nbd.flush()
        nbd.close()
        return changed

    def stop(self):
        self.server.stop(120)


class Firn(Archiver):
    name, label = "firn", "**firn**"

    def __init__(self, bench, place, url=None, env=None):
        super().__init__(bench, place)
        self.pool = bench.pool
        self.url = url or f"file://{self.repository}"
        self.env = env or {}

    def environment(self):
        return {**os.environ, **self.env}

    def firn(self, *words, pool=True, statuses=(0,)):
        """Its cost, with what the daemon used meanwhile."""
        before = self.pool.server.cpu_seconds()
        cost = self.run(self.pool.firn, *(["--pool", self.pool.pool] if pool else []), *words, statuses=statuses)
        cost["cpu_s"] += self.pool.server.cpu_seconds() - before
        return cost

    def create(self):
        self.firn("archive", "create", self.url, pool=False)

    def push(self, image):
        cost = self.firn("archive", "push", IMAGES[image], self.url, "--json")
        return {**cost, "report": json.loads(cost["text"])}

    def restore(self, image):
        return {**self.firn("restore", self.url, IMAGES[image], "back"), "flush_s": 0}  # It returns when all is durable.

    def compare(self, image):
        self.back.unlink(missing_ok=True)
        self.pool.ask("disk", "export", "back", self.back, "--format", "raw")
        super().compare(image)
        self.back.unlink()

    def forget(self):
        self.pool.ask("disk", "delete", "back")

    def remove(self, images):
        return sum_of(self.firn("archive", "delete", self.url, IMAGES[image], pool=False) for image in images)

    def clean(self):
        return self.firn("archive", "clean", self.url, "--grace", "0", "--min-age", "0", pool=False)

    def verify(self):
        return self.firn("archive", "scrub", self.url, pool=False)
