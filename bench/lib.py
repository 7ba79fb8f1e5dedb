# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: processes and what they cost, coming to rest, tables, the record of a run.

Knows no server and no workload: bench/servers.py and the run_* programs do.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def command(*words, **more):
    """Runs to the end; its words on failure."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(condition, what, process=None, seconds=30, pause=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the server ended with status {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def allocated(path):
    return os.stat(path).st_blocks * 512


def accepts(path):
    """Whether somebody listens on the Unix socket."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
            return True
        except OSError:
            return False


def io_of(pid):
    """Bytes that the process has read from and written to devices: all of it, metadata too; not the page cache."""
    fields = dict(line.split(": ") for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines())
    return {"read": int(fields["read_bytes"]), "written": int(fields["write_bytes"])}


def device_io(path):
    """What the block device under `path` has read and written, for everybody; nothing where that cannot be known."""
    number = os.stat(path).st_dev
    for line in pathlib.Path("/proc/diskstats").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if (int(words[0]), int(words[1])) == (os.major(number), os.minor(number)):
            return {"read": int(words[5]) * 512, "written": int(words[9]) * 512}
    return None


def device_requests(path):
    """How many reads and writes the block device under `path` has done, for everybody; nothing where that cannot be known."""
    number = os.stat(path).st_dev
    for line in pathlib.Path("/proc/diskstats").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if (int(words[0]), int(words[1])) == (os.major(number), os.minor(number)):
            return int(words[3]) + int(words[7])
    return None


def moved(before, after):
    return None if before is None or after is None else {key: after[key] - before[key] for key in after}


class Server:
    """A process of ours: its CPU time, its memory, its input and output, its end."""

    def __init__(self, words, ready, what, seconds=30, pause=0.02, env=None):
        self.words = tempfile.TemporaryFile()  # Not a pipe: nobody reads while it runs.
        begin = time.monotonic()
        self.process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=self.words,
                                        env=env and {**os.environ, **env})
        try:
            wait_for(ready, what, self.process, seconds, pause)
        except RuntimeError as error:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"{error}\n{self.last_words()}") from None
        self.start_seconds = time.monotonic() - begin

    def last_words(self):
        self.words.seek(0)
        return self.words.read().decode(errors="replace")[-4000:]

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mib(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE / 2**20

    def io(self):
        return io_of(self.process.pid)

    def stop(self, seconds=30):
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.words.close()


def rest(servers):
    """Until no server has used CPU for a third of a second, 30 s at most: what works behind is done."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        before = [s.cpu_seconds() for s in servers]
        time.sleep(0.34)
        if all(s.cpu_seconds() - b <= 1 / TICK for s, b in zip(servers, before)):
            return
    say("a server did not come to rest within 30 s")


def percentile(values, percent):
    """The smallest value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def short(value):
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def row(words):
    return "| " + " | ".join(words) + " |"


def print_table(title, head, rows):
    if title:
        print(f"\n{title}\n")
    print(row(head))
    print("|" + " --- |" * len(head))
    for words in rows:
        print(row(words))


def print_goals(goals):
    """`goals`: what, what was wanted, what was measured, whether that meets it."""
    if goals:
        print()
        print_table("", ["goal", "wanted", "measured", ""],
                    [[what, wanted, measured, "met" if met else "missed"] for what, wanted, measured, met in goals])


def context(bench, options):
    git = lambda *words: subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True,
                                        check=False).stdout.strip()
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                  if line.startswith("model name")), platform.machine())
    return {"bench": bench, "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit": git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else ""),
            "kernel": platform.release(), "cores": os.cpu_count(), "cpu": model,
            "qemu": command("qemu-nbd", "--version").split()[1], "load": os.getloadavg()[0],
            "rounds": options.rounds, "seconds": options.seconds, "bytes": options.bytes}


def head_of(record):
    return (f"{record['time']}, commit {record['commit']}, kernel {record['kernel']}, {record['cores']} cores, "
            f"load {record['load']:.1f} to {record['load_end']:.1f}, medians of {record['rounds']} rounds of "
            f"{record['seconds']} s, disks of {record['bytes'] / 2**30:g} GiB")


def keep(record, path):
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def parser_of(prog, description, quick):
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--size", type=float, default=2, help="of each disk, GiB")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(os.environ.get("TMPDIR", ROOT / "build/bench")),
                        help="where the data lies: the device that is measured (default: $TMPDIR, else build/bench)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", help="where the programs are")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results.jsonl")
    return parser


@contextlib.contextmanager
def scratch(directory):
    """A directory of this run on the device that is measured; it goes, whatever happens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=directory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
