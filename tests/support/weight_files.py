"""Files of weights in small, the registry that pins them, and a site that serves them with given faults."""

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from torch import Tensor

from refseg_core.models.registry import REGISTRY

MODEL = "sam2_hiera_tiny"
FILE = "sam2_hiera_tiny.pt"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}


def saved(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """The sha256 of the bytes."""
    return hashlib.sha256(data).hexdigest()


def same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same tensors by the same names."""
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def publish(monkeypatch: pytest.MonkeyPatch, data: bytes, url: str = "http://127.0.0.1:9/none", **changes: Any) -> None:
    """Has the registry pin `data` at `url` as the weights of MODEL."""
    pinned = {"url": url, "size": len(data), "sha256": digest(data)} | changes
    monkeypatch.setitem(REGISTRY, MODEL, replace(REGISTRY[MODEL], **pinned))


class Site(ThreadingHTTPServer):
    """Serves `data` at every path, with the given faults."""

    daemon_threads = True
    data = b""
    sends_ranges = True
    cuts: list[int]  # how many bytes of its body the next answers may send before the connection is lost
    statuses: list[int]  # what the next answers fail with
    requests: list[tuple[str, str | None]]  # method and range of every request

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data, self.cuts, self.statuses, self.requests = data, [], [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{FILE}"

    @property
    def starts(self) -> list[int]:
        """Where the ranges that were asked for begin."""
        ranges = [asked for method, asked in self.requests if method == "GET"]
        return [int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0 for asked in ranges]


@contextmanager
def serving(data: bytes) -> Iterator[Site]:
    """A site that runs as long as the block."""
    with Site(data) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_HEAD(self) -> None:
        self._head(self._begin())

    def do_GET(self) -> None:
        body = self._begin()
        if not self._head(body):
            return
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def _begin(self) -> bytes:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, asked))
        if not asked or not self.server.sends_ranges:
            return self.server.data
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return self.server.data[int(first) : int(last) + 1 if last else None]

    def _head(self, body: bytes) -> bool:
        if self.server.statuses:
            self.send_response(self.server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        is_part = self.headers.get("Range") is not None and self.server.sends_ranges
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.sends_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return True

    def log_message(self, *_arguments: object) -> None:
        """Silent."""
