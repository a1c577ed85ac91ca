"""A server on this machine that answers as real ones do: partly, late, with other files, elsewhere."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """``files``: content by path. The query says how to misbehave, for example ``/file?cut=100``.

    cut=N ends every answer after N bytes; stall=N sends N bytes and then nothing for a while; whole=1 knows no
    ranges; absent=CODE; says=N announces N bytes; redirect=URL; page=1 is a web page; shift=N begins a part N
    bytes later than asked; once=1 misbehaves in the first answer only. ``asked`` lists (path, Range) of all requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.versions: dict[str, str] = {}
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        mine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mine.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, request: Any) -> None:
        path, _, query = request.path.partition("?")
        how = dict(part.split("=", 1) for part in query.split("&") if part)
        before = sum(asked == request.path for asked, _ in self.asked)
        self.asked.append((request.path, request.headers.get("Range")))
        if how.get("once") and before:
            how = {}
        if "redirect" in how:
            request.send_response(302)
            request.send_header("Location", how["redirect"])
            request.end_headers()
            return
        if "absent" in how or path not in self.files:
            request.send_error(int(how.get("absent", 404)))
            return
        content, version = self.files[path], self.versions.get(path)
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or "")
        if "whole" in how or (version and request.headers.get("If-Range") not in (None, version)):
            asked = None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        first = min(start + int(how.get("shift", 0)), len(content) - 1) if asked else 0
        body = content[first:]
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if version:
            request.send_header("ETag", version)
        if "page" in how:
            request.send_header("Content-Type", "text/html; charset=utf-8")
        request.send_header("Content-Length", how.get("says", str(len(body))))
        request.end_headers()
        limit = int(how.get("cut", how.get("stall", len(body))))
        request.wfile.write(body[:limit])
        request.wfile.flush()
        if "stall" in how:
            time.sleep(1.0)
