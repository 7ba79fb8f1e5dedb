# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for the benchmarks: radosgw as tests/ceph.bash brings it up. Requests are counted in its own log."""
import os
import re
import subprocess
import urllib.parse

from lib import ROOT, command

SCRIPT = r"""
source tests/lib.sh
source tests/ceph.bash
ceph_requires
ceph_start "$tmp/ceph"
echo "$ceph_endpoint $ceph_key $ceph_secret $tmp/ceph/log/client.rgw.a.log"
read -r _ || true
"""
LINE = re.compile(r'"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1" (\d+) (\d+) ')


class Bucket:
    def __init__(self, bench, place):
        environment = {**os.environ, "FIRN": str(bench.build / "firn"), "TMPDIR": str(place), "FIRN_CEPH_BYTES": "6442450944"}
        self.process = subprocess.Popen(["bash", "-c", SCRIPT, str(ROOT / "tests/bucket")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        words = self.process.stdout.readline().split()
        if len(words) != 4:
            raise RuntimeError(f"radosgw did not start: status {self.process.wait()}")
        self.endpoint, key, secret, self.log = words
        self.env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "no_proxy": "*"}
        command("curl", "-fsS", "--noproxy", "*", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3", "-u", f"{key}:{secret}",
                "-H", "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                f"{self.endpoint}/firn")
        self.url = f"s3://firn/vms?endpoint={self.endpoint}"

    def mark(self):
        return os.stat(self.log).st_size

    def since(self, mark):
        """What was asked since then: requests by verb, and bytes that gets brought."""
        with open(self.log, "rb") as log:
            log.seek(mark)
            text = log.read().decode(errors="replace")
        seen = {"PUT": 0, "GET": 0, "LIST": 0, "HEAD": 0, "DELETE": 0, "data PUT": 0, "data LIST": 0, "bytes": 0}
        for verb, target, _, size in LINE.findall(text):
            path, _, query = target.partition("?")
            if verb == "GET" and (path.count("/") < 3 or "list-type" in query):
                verb = "LIST"
                seen["data LIST"] += "prefix=vms/m/" not in urllib.parse.unquote(query)
            verb = "PUT" if verb == "POST" else verb
            seen[verb] += 1
            seen["bytes"] += int(size) if verb == "GET" else 0
            seen["data PUT"] += verb == "PUT" and "/d/" in path
        return seen

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
