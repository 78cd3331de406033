"""A proxy that stands in front of an S3 server and has the network fail as it does in the field.

    with FaultProxy(server.endpoint, level=LIGHT, seed=3) as proxy, server.behind(proxy.endpoint).in_environment():
        ...  # whatever uses S3 here, also in processes started here, goes through the proxy
        assert proxy.count_requests("PUT", r"/shards/") == 12

Messages pass byte by byte as they came, the Host header included, so that signatures stay valid. Faults follow
rules, or are drawn from a seeded generator with the probabilities of a level; rules come first, in their order:

    proxy.rules = [Rule(Fault.LOSE_REPLY, "PUT", r"/shards/00003", nth=1)]

`level` and `rules` may be changed at any time. Every connection has a thread and a connection of its own to the server.
"""

import itertools
import random
import re
import select
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.http_wire import Head, Peer

_MOST_SECONDS_TO_REPLY = 120.0


class Fault(Enum):
    """What may happen to a request."""

    LOSE_REPLY = "the server does what was asked, but the connection ends without a reply"
    INTERNAL_ERROR = "the reply is 500 InternalError, and the server never hears of the request"
    SLOW_DOWN = "the reply is 503 SlowDown, and the server never hears of the request"
    CUT_BODY = "the connection ends half way through the reply's body; a reply that has none passes"
    DELAY = "the reply comes late"
    OUTAGE = "the server never hears of the request, and for a while every connection is reset at once"


_ERRORS = {
    Fault.INTERNAL_ERROR: ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}


@dataclass(frozen=True)
class Level:
    """For each fault the probability that a request meets it, and the seconds that delays and outages take."""

    name: str
    lose_reply: float = 0.0
    internal_error: float = 0.0
    slow_down: float = 0.0
    cut_body: float = 0.0
    delay: float = 0.0
    outage: float = 0.0
    delay_seconds: float = 0.2
    outage_seconds: float = 10.0

    def draw(self, generator: random.Random) -> Fault | None:
        """One fault or none."""
        weights = [getattr(self, fault.name.lower()) for fault in Fault]
        return generator.choices([*Fault, None], [*weights, 1 - sum(weights)])[0]


CALM = Level("calm")
LIGHT = Level("light", lose_reply=0.005, internal_error=0.005, slow_down=0.005, cut_body=0.005, delay=0.01)
MEDIUM = Level("medium", lose_reply=0.02, internal_error=0.02, slow_down=0.03, cut_body=0.02, delay=0.05, outage=0.001)
HEAVY = Level("heavy", lose_reply=0.06, internal_error=0.06, slow_down=0.08, cut_body=0.06, delay=0.1, outage=0.003)
LEVELS = {level.name: level for level in (CALM, LIGHT, MEDIUM, HEAVY)}


@dataclass
class Request:
    """A request and what became of it; sizes are those of bodies in bytes, 0 where they are not promised."""

    method: str
    path: str  # without percent signs
    query: str
    size: int
    fault: Fault | None = None
    status: int | None = None  # of the server's reply; None where there is none yet, or never will be
    reply_size: int = 0

    @property
    def kind(self) -> str:
        """The path without what differs from one object to the next: `/*/labels/*/shards/*.parquet`.

        For a listing, with what it lists: `/*?prefix=folder/labels/`.
        """
        bucket, *parts = self.path.removeprefix("/").split("/")
        path = "/".join(["", "*" if bucket else "", *map(_kind_of_part, parts)])
        (prefix,) = parse_qs(self.query, keep_blank_values=True).get("prefix", [None])
        return path if prefix is None else f"{path}?prefix={'/'.join(map(_kind_of_part, prefix.split('/')))}"


@dataclass(frozen=True)
class Rule:
    """A fault for requests of one method (None: any) whose path holds a pattern.

    Of those it meets the nth, those in a range such as `range(1, 6)`, or all.
    """

    fault: Fault
    method: str | None = None
    path: str = ""
    nth: int | range | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False, repr=False)

    def __call__(self, request: Request) -> Fault | None:
        """The fault that the request meets."""
        if not _matches(request, self.method, self.path):
            return None
        number = next(self._numbers)
        met = self.nth is None or number in (self.nth if isinstance(self.nth, range) else (self.nth,))
        return self.fault if met else None


class FaultProxy:
    """The proxy; it runs within its `with` block."""

    def __init__(
        self,
        upstream: str,
        *,
        level: Level = CALM,
        rules: Sequence[Callable[[Request], Fault | None]] = (),
        seed: int = 0,
    ) -> None:
        self.level = level
        self.rules = rules
        address = urlsplit(upstream)
        self._upstream = (address.hostname, address.port or 80)
        self._random = random.Random(seed)
        self._requests: list[Request] = []
        self._lock = threading.Lock()  # of the generator and the connections
        self._connections: set[socket.socket] = set()
        self._up_again_at = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server(self._serve)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._drop_connections()
        self._server.server_close()  # waits for the connections' threads

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they came."""
        return list(self._requests)

    def count_requests(self, method: str | None = None, path: str = "") -> int:
        """The number of requests of one method (None: any) whose path holds a pattern."""
        return sum(_matches(request, method, path) for request in self.requests)

    @property
    def request_counts(self) -> Counter[tuple[str, str]]:
        """The number of requests of each method and kind of path."""
        return Counter((request.method, request.kind) for request in self.requests)

    @property
    def fault_counts(self) -> Counter[Fault]:
        """The number of faults that happened, of each kind."""
        return Counter(request.fault for request in self.requests if request.fault)

    def forget_requests(self) -> None:
        """Counts from zero again."""
        self._requests = []

    def start_storm(self, level: Level, seed: int) -> None:
        """Draws faults from now on, the same for the same seed and requests."""
        self.level, self._random = level, random.Random(seed)

    def go_down(self, seconds: float) -> None:
        """Ends all connections, and resets new ones at once until the seconds have passed."""
        self._up_again_at = time.monotonic() + seconds
        self._drop_connections()

    def _drop_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # which wakes its thread; that closes it

    @contextmanager
    def _known(self, connection: socket.socket) -> Iterator[Peer]:
        with closing(connection):
            with self._lock:
                self._connections.add(connection)
            try:
                yield Peer(connection)
            finally:
                with self._lock:
                    self._connections.remove(connection)

    def _serve(self, connection: socket.socket) -> None:
        """Passes requests on until one end closes the connection, or a fault does."""
        with suppress(OSError), self._known(connection) as client:
            if self._ended.is_set() or time.monotonic() < self._up_again_at:
                client.reset()
                return
            select.select([client], [], [])
            upstream = socket.create_connection(self._upstream, timeout=_MOST_SECONDS_TO_REPLY)
            with self._known(upstream) as server:
                while not self._ended.is_set() and _next_request_comes(client, server):
                    if not self._pass_on(client.read_head(), client, server):
                        return

    def _pass_on(self, head: Head, client: Peer, server: Peer) -> bool:
        """Whether the connection can take another request afterwards."""
        request = _request(head)
        fault = self._fault_for(request)
        if fault is not Fault.CUT_BODY:
            request.fault = fault
        self._requests.append(request)
        if fault is Fault.OUTAGE:
            client.reset()
            self.go_down(self.level.outage_seconds)
            return False
        if fault in _ERRORS:
            return _refuse(head, client, *_ERRORS[fault])
        reply, can_go_on = _ask(head, client, server)
        has_body = reply.has_body_after(request.method)
        body = server.read_reply_body(reply) if has_body else iter(())
        request.status, request.reply_size = reply.status, reply.content_length or 0 if has_body else 0
        if fault is Fault.LOSE_REPLY:
            _drain(body)  # so that the server finishes
            return False
        if fault is Fault.CUT_BODY and has_body:
            request.fault, body, can_go_on = fault, _first_half(body, request.reply_size), False
        if fault is Fault.DELAY:
            self._ended.wait(self.level.delay_seconds)
        client.send(reply.raw)
        for block in body:
            client.send(block)
        return can_go_on and not reply.closes and (reply.is_delimited or not has_body)

    def _fault_for(self, request: Request) -> Fault | None:
        for rule in self.rules:
            if fault := rule(request):
                return fault
        with self._lock:
            return self.level.draw(self._random)


class _Server(socketserver.ThreadingTCPServer):
    """Gives each connection a thread, and waits for all of them when it closes."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), lambda connection, *_: serve(connection))


def _next_request_comes(client: Peer, server: Peer) -> bool:
    """Waits for a request; False where the server closes the idle connection before, as it would without a proxy."""
    return client.has_unread or client in select.select([client, server], [], [])[0]


def _ask(head: Head, client: Peer, server: Peer) -> tuple[Head, bool]:
    """Sends a request on. Returns the head of the reply, and whether the client may send another request."""
    server.send(head.raw)
    if head.waits_for_continue and not client.has_unread and server in select.select([client, server], [], [])[0]:
        reply = server.read_head()
        if reply.status != 100:
            return reply, False
        client.send(reply.raw)
    for block in client.read_request_body(head):
        try:
            server.send(block)
        except OSError:  # it may have replied before it closed the connection
            return server.read_head(), False
    while (reply := server.read_head()).status < 200:
        client.send(reply.raw)
    return reply, not head.closes


def _refuse(head: Head, client: Peer, status: str, code: str, message: str) -> bool:
    """Replies in the server's place. Returns whether the client may send another request."""
    if not head.waits_for_continue:
        _drain(client.read_request_body(head))
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/xml", f"Content-Length: {len(body)}"]
    lines += ["Connection: close"] * head.waits_for_continue
    client.send(("\r\n".join([*lines, "", ""]) + body * (head.first_line[0] != "HEAD")).encode())
    return not head.waits_for_continue and not head.closes


def _drain(body: Iterator[bytes]) -> None:
    for _ in body:
        pass


def _first_half(body: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The first half of a body of known size; of one that says its length as it goes, half of its first chunk."""
    if not size:
        yield next(body, b"")
        block = next(body, b"")
        yield block[: len(block) // 2]
    left = size // 2
    while left:
        block = next(body)[:left]
        left -= len(block)
        yield block


def _request(head: Head) -> Request:
    method, target, _ = head.first_line
    path, _, query = target.partition("?")
    return Request(method, unquote(path), query, head.content_length or 0)


def _matches(request: Request, method: str | None, path: str) -> bool:
    return method in (None, request.method) and re.search(path, request.path) is not None


def _kind_of_part(part: str) -> str:
    return "*" + PurePosixPath(part).suffix if re.search(r"\d", part) else part
