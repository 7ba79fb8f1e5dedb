#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small S3 server on loopback that misbehaves as it is told: for what a real one cannot be made to do.

    tests/s3_server.py PORT_FILE [--ignore-conditions] [--trouble N] [--unavailable COUNT] [--refuse STATUS:CODE]
                       [--skew SECONDS] [--refuse-part N] [--ignore-ranges] [--flip-list] [--log FILE] [--tls CERTIFICATE KEY]

One bucket of any name, objects in memory, signatures not checked (radosgw's are: tests/s3_store.sh), digests of
bodies are. --trouble N: one request in N gets a 503, one is dropped, one loses its answer after it took effect, one
gets its body cut, and the body of one arrives torn. Writes its port into PORT_FILE when it listens.
"""
import argparse
import base64
import email.utils
import hashlib
import http.server
import os
import random
import ssl
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings):
        super().__init__(("127.0.0.1", 0), Handler)
        self.settings = settings
        self.lock = threading.Lock()
        self.objects = {}
        self.uploads = {}
        self.requests = 0
        self.chance = random.Random(1)

    def handle_error(self, request, client_address):
        pass  # Connections that we dropped.


class Dropped(Exception):
    pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # A head and a body are two writes.
    server: Server

    def log_message(self, *_):
        pass

    # --- what comes out
    def date_time_string(self, timestamp=None):
        return email.utils.formatdate((timestamp or time.time()) + self.server.settings.skew, usegmt=True)

    def answer(self, status, body=b"", **headers):
        if self.fate == "lose":
            raise Dropped
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        length = headers.pop("length", len(body))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fate == "cut" and len(body) > 1:
            self.wfile.write(body[:len(body) // 2])
            raise Dropped
        self.wfile.write(body)

    def refuse(self, status, code):
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
        self.answer(status, text.encode())

    # --- what comes in
    def do_any(self):
        server = self.server
        self.fate = None
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with server.lock:
                server.requests += 1
                self.note()
                if server.settings.trouble:
                    fates = {0: "busy", 1: "drop", 2: "lose", 3: "cut", 4: "tear"}
                    self.fate = fates.get(server.chance.randrange(server.settings.trouble))
                if server.requests <= server.settings.unavailable or self.fate == "busy":
                    return self.refuse(503, "SlowDown")
                if self.fate == "drop":
                    raise Dropped
                if server.settings.refuse:
                    status, code = server.settings.refuse.split(":")
                    return self.refuse(int(status), code)
                if self.fate == "tear":
                    body = body[:len(body) // 2]
                if self.digest_is_wrong(body):
                    return self.refuse(400, "BadDigest")
                self.serve(body)
        except (Dropped, ConnectionError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

    def note(self):
        if self.server.settings.log:
            with open(self.server.settings.log, "a", encoding="utf-8") as file:
                names = ",".join(sorted(name.lower() for name in self.headers))
                file.write(f"{self.command} {self.path} {names} {self.headers.get('x-amz-content-sha256')}\n")

    def digest_is_wrong(self, body):
        told = self.headers.get("x-amz-content-sha256", "")
        if told != "UNSIGNED-PAYLOAD" and told != hashlib.sha256(body).hexdigest():
            return True
        md5 = self.headers.get("Content-MD5")
        if told == "UNSIGNED-PAYLOAD" and body and md5 is None:
            return True
        return md5 is not None and md5 != base64.b64encode(hashlib.md5(body).digest()).decode()

    def serve(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        _, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        if not key:
            return self.serve_bucket(query)
        if "uploads" in query or "uploadId" in query:
            return self.serve_upload(key, query, body)
        return getattr(self, "serve_" + self.command.lower())(key, body)

    def serve_bucket(self, query):
        if "list-type" in query:
            return self.serve_list(query)
        missing = {"lifecycle": "NoSuchLifecycleConfiguration", "object-lock": "ObjectLockConfigurationNotFoundError"}
        for name, code in missing.items():
            if name in query:
                return self.refuse(404, code)
        return self.answer(200, b"<VersioningConfiguration/>")

    def serve_list(self, query):
        prefix, after, count = query.get("prefix", ""), query.get("start-after", ""), int(query.get("max-keys", 1000))
        keys = [k for k in sorted(self.server.objects) if k.startswith(prefix) and k > after]
        page = keys[:count]
        if self.server.settings.flip_list:
            page.reverse()
        entries = "".join(
            f"<Contents><Key>{escape(urllib.parse.quote(k))}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(self.server.objects[k])}</Size><StorageClass>STANDARD</StorageClass></Contents>" for k in page)
        more = "true" if len(keys) > count else "false"
        self.answer(200, f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{entries}</ListBucketResult>".encode())

    def serve_put(self, key, body):
        if self.headers.get("If-None-Match") == "*" and not self.server.settings.ignore_conditions:
            if key in self.server.objects:
                return self.refuse(412, "PreconditionFailed")
        self.server.objects[key] = body
        self.answer(200, ETag='"x"')

    def serve_get(self, key, _body):
        if key not in self.server.objects:
            return self.refuse(404, "NoSuchKey")
        data = self.server.objects[key]
        ranged = self.headers.get("Range")
        if not ranged or self.server.settings.ignore_ranges:
            return self.answer(200, data)
        first, _, last = ranged.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last), len(data) - 1)
        if first > last:
            return self.refuse(416, "InvalidRange")
        self.answer(206, data[first:last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")

    def serve_head(self, key, _body):
        if key not in self.server.objects:
            return self.answer(404)
        self.answer(200, length=len(self.server.objects[key]), Last_Modified=self.date_time_string())

    def serve_delete(self, key, _body):
        self.server.objects.pop(key, None)
        self.answer(204)

    def serve_upload(self, key, query, body):
        uploads = self.server.uploads
        if self.command == "POST" and "uploads" in query:
            upload = str(len(uploads) + 1)
            uploads[upload] = {}
            return self.answer(200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>".encode())
        parts = uploads.get(query["uploadId"])
        if self.command == "DELETE":
            uploads.pop(query["uploadId"], None)
            return self.answer(204)
        if parts is None:
            return self.refuse(404, "NoSuchUpload")
        if self.command == "PUT":
            if int(query["partNumber"]) == self.server.settings.refuse_part:
                return self.refuse(403, "AccessDenied")
            parts[int(query["partNumber"])] = body
            return self.answer(200, ETag=f'"{query["partNumber"]}"')
        self.server.objects[key] = b"".join(parts[n] for n in sorted(parts))
        # Kept, so that to complete it again after a lost answer is no error: what AWS does.
        return self.answer(200, b"<CompleteMultipartUploadResult/>")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port_file")
    parser.add_argument("--ignore-conditions", action="store_true")
    parser.add_argument("--ignore-ranges", action="store_true")
    parser.add_argument("--flip-list", action="store_true")
    parser.add_argument("--trouble", type=int, default=0)
    parser.add_argument("--unavailable", type=int, default=0)
    parser.add_argument("--refuse", default="")
    parser.add_argument("--refuse-part", type=int, default=0)
    parser.add_argument("--skew", type=float, default=0)
    parser.add_argument("--log", default="")
    parser.add_argument("--tls", nargs=2)
    settings = parser.parse_args()
    server = Server(settings)
    if settings.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*settings.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with open(settings.port_file + ".new", "w", encoding="ascii") as file:
        file.write(str(server.server_address[1]))
    os.rename(settings.port_file + ".new", settings.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
