"""Every fault is seen by a client as it is described, and without faults nobody notices the proxy."""

import http.client
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks.storage.folder import Folder
from tests.support.servers.fault_proxy import CALM, HEAVY, LEVELS, Fault, FaultProxy, Request, Rule
from tests.support.servers.object_stores import ObjectStore

pytest_plugins = ["tests.support.servers.stores"]

_ERRORS = {Fault.INTERNAL_ERROR: (500, b"InternalError"), Fault.SLOW_DOWN: (503, b"SlowDown")}


class _Handler(BaseHTTPRequestHandler):
    """Keeps what is put, by path; `/chunked` replies in chunks, `/unchanged` with 304, `/closing` closes."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    hosts: list[str]

    def do_PUT(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.objects[self.path] = self._chunks() if self.headers["Transfer-Encoding"] else self._body()
        self._reply(200, b"")

    def do_GET(self) -> None:
        if self.path == "/unchanged":
            self.send_response(304)
            self.send_header("Content-Length", "1000")
            self.end_headers()
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n")
        else:
            self._reply(200, self.objects[self.path])

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.objects.pop(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/closing":
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class Upstream(ThreadingHTTPServer):
    """A server behind the proxy."""

    daemon_threads = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.hosts: list[str] = []
        handler = type("Handler", (_Handler,), {"objects": self.objects, "hosts": self.hosts})
        super().__init__(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.endpoint) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)) as connection:
        yield connection


def _port(proxy: FaultProxy) -> int:
    return int(proxy.endpoint.rpartition(":")[2])


def _ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    reply = client.getresponse()
    return reply.status, reply.read()


# --- without faults --------------------------------------------------------------------------------------------------


def test_one_connection_takes_requests_of_all_kinds(client: http.client.HTTPConnection, upstream: Upstream) -> None:
    data = os.urandom(3_000_000)
    assert _ask(client, "PUT", "/a", data) == (200, b"")
    connection = client.sock
    assert _ask(client, "GET", "/a") == (200, data)
    assert _ask(client, "HEAD", "/a") == (200, b"")
    assert _ask(client, "GET", "/unchanged") == (304, b"")
    assert _ask(client, "GET", "/chunked") == (200, b"abcdefg")
    assert _ask(client, "DELETE", "/a") == (204, b"")
    assert _ask(client, "PUT", "/empty", b"") == (200, b"")
    assert client.sock is connection
    assert upstream.objects == {"/empty": b""}


def test_the_host_is_what_the_client_named(
    client: http.client.HTTPConnection, proxy: FaultProxy, upstream: Upstream
) -> None:
    _ask(client, "PUT", "/a", b"")
    assert upstream.hosts == [f"127.0.0.1:{_port(proxy)}"]


def test_a_body_sent_in_chunks_arrives(client: http.client.HTTPConnection, upstream: Upstream) -> None:
    blocks = [os.urandom(size) for size in (1, 70_000, 300_000)]
    client.request("PUT", "/a", iter(blocks), encode_chunked=True)
    assert client.getresponse().read() == b""
    assert upstream.objects["/a"] == b"".join(blocks)
    assert _ask(client, "GET", "/a") == (200, b"".join(blocks))


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(proxy: FaultProxy, upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", _port(proxy)), timeout=60) as client:
        for number in range(2):
            client.sendall(b"PUT /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n" % number)
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
            client.sendall(b"data")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert upstream.objects == {"/0": b"data", "/1": b"data"}


def test_a_client_that_does_not_wait_to_be_asked_is_understood(proxy: FaultProxy, upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", _port(proxy)), timeout=60) as client:
        client.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\ndata")
        reply = b""
        while b" 200 OK" not in reply:
            reply += client.recv(1000)
    assert upstream.objects == {"/a": b"data"}


def test_a_connection_that_the_server_closes_is_closed(client: http.client.HTTPConnection) -> None:
    assert _ask(client, "PUT", "/closing", b"") == (200, b"")
    assert client.sock is None


def test_a_server_that_is_away_looks_away(proxy: FaultProxy, upstream: Upstream) -> None:
    upstream.socket.close()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        _ask(http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60), "GET", "/a")


@pytest.mark.slow
def test_many_clients_at_once_get_each_their_own(proxy: FaultProxy) -> None:
    def use(number: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)) as client:
            for turn in range(20):
                data = bytes([number, turn]) * 1000
                _ask(client, "PUT", f"/{number}", data)
                right.append(_ask(client, "GET", f"/{number}") == (200, data))

    right: list[bool] = []
    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 160
    assert proxy.request_counts == {("PUT", "/*"): 160, ("GET", "/*"): 160}


def test_nothing_is_left_when_it_stops(upstream: Upstream) -> None:
    before = set(threading.enumerate())
    with FaultProxy(upstream.endpoint, level=replace(CALM, delay_seconds=60)) as proxy:
        idle = http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)
        _ask(idle, "PUT", "/a", b"")
        silent = socket.create_connection(("127.0.0.1", _port(proxy)), timeout=60)
        proxy.rules = [Rule(Fault.DELAY)]
        waiting = http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)
        waiting.request("GET", "/a")
        while proxy.count_requests("GET") == 0:
            time.sleep(0.001)
        started = time.monotonic()
    assert time.monotonic() - started < 30  # and not the 60 s of the delay
    while not set(threading.enumerate()) <= before:  # the server's threads end when they see that the proxy is gone
        assert time.monotonic() - started < 30
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", _port(proxy)))
    for connection in (idle, silent, waiting):
        connection.close()


# --- faults ----------------------------------------------------------------------------------------------------------


def test_of_a_lost_reply_the_server_did_what_was_asked(
    client: http.client.HTTPConnection, proxy: FaultProxy, upstream: Upstream
) -> None:
    proxy.rules = [Rule(Fault.LOSE_REPLY, "PUT")]
    with pytest.raises(http.client.RemoteDisconnected):
        _ask(client, "PUT", "/a", b"data")
    assert upstream.objects == {"/a": b"data"}
    assert _ask(client, "GET", "/a") == (200, b"data")


@pytest.mark.parametrize(("fault", "seen"), _ERRORS.items())
def test_of_a_request_that_is_refused_the_server_hears_nothing(
    fault: Fault,
    seen: tuple[int, bytes],
    client: http.client.HTTPConnection,
    proxy: FaultProxy,
    upstream: Upstream,
) -> None:
    proxy.rules = [Rule(fault, nth=1), Rule(fault, "HEAD")]
    status, body = _ask(client, "PUT", "/a", os.urandom(1_000_000))
    connection = client.sock
    assert status == seen[0]
    assert b"<Code>%s</Code>" % seen[1] in body
    assert upstream.objects == {}
    assert _ask(client, "PUT", "/a", b"data") == (200, b"")
    assert _ask(client, "HEAD", "/a") == (seen[0], b"")
    assert _ask(client, "GET", "/a") == (200, b"data")
    assert client.sock is connection


def test_a_client_that_waits_to_be_asked_for_the_body_is_refused_before(proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Fault.SLOW_DOWN)]
    with socket.create_connection(("127.0.0.1", _port(proxy)), timeout=60) as client:
        client.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        reply = b"".join(iter(lambda: client.recv(1000), b""))
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert reply.endswith(b"</Error>")


@pytest.mark.parametrize("size", [1, 2, 1000, 1_000_001])
def test_a_body_that_is_cut_ends_half_way(size: int, client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    data = os.urandom(size)
    _ask(client, "PUT", "/a", data)
    proxy.rules = [Rule(Fault.CUT_BODY, nth=1)]
    client.request("GET", "/a")
    reply = client.getresponse()
    assert reply.getheader("Content-Length") == str(size)
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    assert caught.value.partial == data[: size // 2]
    client.close()
    assert _ask(client, "GET", "/a") == (200, data)


def test_a_body_in_chunks_is_cut_too(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Fault.CUT_BODY)]
    client.request("GET", "/chunked")
    with pytest.raises(http.client.IncompleteRead):
        client.getresponse().read()


def test_a_reply_without_a_body_cannot_be_cut(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Fault.CUT_BODY)]
    assert _ask(client, "PUT", "/a", b"data") == (200, b"")
    assert _ask(client, "HEAD", "/a") == (200, b"")
    assert not proxy.fault_counts


def test_a_late_reply_is_late_and_whole(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.level = replace(CALM, delay_seconds=0.2)
    proxy.rules = [Rule(Fault.DELAY, nth=1)]
    started = time.monotonic()
    assert _ask(client, "PUT", "/a", b"data") == (200, b"")
    assert time.monotonic() - started >= 0.2


@pytest.mark.slow
def test_in_an_outage_every_connection_is_reset_and_afterwards_none(
    client: http.client.HTTPConnection, proxy: FaultProxy, upstream: Upstream
) -> None:
    other = http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)
    assert _ask(other, "PUT", "/a", b"data") == (200, b"")
    proxy.level = replace(CALM, outage_seconds=0.5)
    proxy.rules = [Rule(Fault.OUTAGE, nth=1)]
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        _ask(client, "PUT", "/b", b"data")
    # Cut before its reply, or in the middle of it where the server was quicker.
    with closing(other), pytest.raises((ConnectionError, http.client.IncompleteRead)):
        _ask(other, "GET", "/a")
    attempts = 0
    while True:
        client.close()
        attempts += 1
        try:
            assert _ask(client, "GET", "/a") == (200, b"data")
            break
        except ConnectionError:
            time.sleep(0.01)
    assert attempts > 2
    assert time.monotonic() - started >= 0.5
    assert upstream.objects == {"/a": b"data"}
    assert proxy.fault_counts == {Fault.OUTAGE: 1}
    other.close()


# --- which requests meet a fault -------------------------------------------------------------------------------------


def test_rules_name_requests_by_method_path_and_number(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.rules = [
        Rule(Fault.SLOW_DOWN, "PUT", r"/shards/\d+$", nth=2),
        Rule(Fault.INTERNAL_ERROR, path="every ö", nth=range(2, 4)),
        lambda request: Fault.SLOW_DOWN if request.size > 5 else None,
    ]
    assert [_ask(client, "PUT", f"/shards/{number}", b"")[0] for number in range(3)] == [200, 503, 200]
    assert [_ask(client, "PUT", "/every%20%C3%B6", b"")[0] for _ in range(4)] == [200, 500, 500, 200]
    assert [_ask(client, "PUT", "/a", bytes(size))[0] for size in (5, 6)] == [200, 503]


def test_requests_are_counted_by_what_they_are(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Fault.SLOW_DOWN, nth=1)]
    _ask(client, "PUT", "/bucket-12/labels/0ab1/shards/0.parquet", b"data")
    _ask(client, "PUT", "/bucket-12/labels/0ab1/shards/0.parquet", b"data")
    _ask(client, "GET", "/bucket-12/labels/0ab1/shards/0.parquet")
    assert proxy.request_counts == {
        ("PUT", "/*/labels/*/shards/*.parquet"): 2,
        ("GET", "/*/labels/*/shards/*.parquet"): 1,
    }
    assert proxy.fault_counts == {Fault.SLOW_DOWN: 1}
    assert proxy.count_requests("PUT", "/shards/") == 2
    assert proxy.count_requests(path="/shards/1") == 0
    assert [(request.status, request.size, request.reply_size) for request in proxy.requests] == [
        (None, 4, 0),
        (200, 4, 0),
        (200, 0, 4),
    ]
    proxy.forget_requests()
    assert proxy.requests == []
    assert Request("GET", "/bucket-12", "list-type=2&prefix=labels%2F0ab1%2F", 0).kind == "/*?prefix=labels/*/"


def test_levels_draw_faults_as_often_as_they_say_and_a_seed_gives_the_same_again() -> None:
    for level in LEVELS.values():
        generators = random.Random(1), random.Random(1)
        drawn, again = ([level.draw(generator) for _ in range(10_000)] for generator in generators)
        assert drawn == again
        for fault in Fault:
            expected = 10_000 * getattr(level, fault.name.lower())
            assert abs(drawn.count(fault) - expected) <= 4 * expected**0.5
    assert list(LEVELS) == ["calm", "light", "medium", "heavy"]


@pytest.mark.slow
def test_a_client_that_tries_again_gets_through_a_heavy_storm(upstream: Upstream) -> None:
    level = replace(HEAVY, delay_seconds=0.001, outage_seconds=0.05)
    with FaultProxy(upstream.endpoint, level=level, seed=1) as proxy:
        for number in range(300):
            data = b"%d" % number * 100
            while _outcome(proxy, "PUT", f"/{number}", data) != (200, b""):
                pass
            while _outcome(proxy, "GET", f"/{number}") != (200, data):
                pass
        assert proxy.fault_counts.keys() == set(Fault)
        assert proxy.count_requests() > 650
    assert len(upstream.objects) == 300


def _outcome(proxy: FaultProxy, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes] | None:
    with closing(http.client.HTTPConnection("127.0.0.1", _port(proxy), timeout=60)) as client:
        try:
            return _ask(client, method, path, body)
        except (OSError, http.client.HTTPException):
            return None


# --- before a real server --------------------------------------------------------------------------------------------


def _session(server: ObjectStore) -> list[object]:
    """What s3fs sees of a server's answers."""
    files, bucket = server.filesystem(), server.new_bucket()
    big = random.Random(1).randbytes(12 << 20)
    seen: list[object] = []
    files.pipe_file(f"{bucket}/a b/ö#1", b"small", mode="create")
    files.pipe_file(f"{bucket}/big", big, chunksize=5 << 20)  # in three parts
    seen += [files.cat_file(f"{bucket}/a b/ö#1"), files.cat_file(f"{bucket}/big") == big]
    seen += [files.cat_file(f"{bucket}/big", start=start, end=start + 9) for start in (0, 5 << 20, len(big) - 5)]
    seen += [files.size(f"{bucket}/big"), files.exists(f"{bucket}/absent")]
    seen += [sorted(path.removeprefix(bucket) for path in files.find(bucket))]
    for name, mode in [("absent/a", "rb"), ("a b/ö#1", "xb")]:
        with pytest.raises(OSError) as caught, files.open(f"{bucket}/{name}", mode) as file:
            file.read() if mode == "rb" else file.write(b"other")
        seen += [type(caught.value), str(caught.value).replace(bucket, "")]
    files.rm_file(f"{bucket}/big")
    return [*seen, files.exists(f"{bucket}/big")]


@pytest.mark.slow
def test_before_a_real_server_nobody_notices_a_calm_proxy(seaweedfs: ObjectStore) -> None:
    with FaultProxy(seaweedfs.endpoint) as proxy:
        assert _session(seaweedfs.behind(proxy.endpoint)) == _session(seaweedfs)
        assert proxy.count_requests("PUT", "big") == 3
        assert not proxy.fault_counts


@pytest.mark.slow
def test_whoever_creates_an_object_owns_it_even_if_the_reply_was_lost(
    fault_proxy: FaultProxy, seaweedfs: ObjectStore
) -> None:
    folder = Folder(f"s3://{seaweedfs.new_bucket()}/folder")
    fault_proxy.rules = [Rule(Fault.LOSE_REPLY, "PUT", "folder/a", nth=1)]
    assert folder.create("a", b"data")
    assert folder.read("a") == b"data"
    assert fault_proxy.fault_counts == {Fault.LOSE_REPLY: 1}


@pytest.mark.slow
def test_requests_are_counted_as_a_client_made_them(fault_proxy: FaultProxy, seaweedfs: ObjectStore) -> None:
    files, bucket = seaweedfs.behind(fault_proxy.endpoint).filesystem(), seaweedfs.new_bucket()
    files.pipe_file(f"{bucket}/labels/0.parquet", b"data")
    assert files.size(f"{bucket}/labels/0.parquet") == 4
    assert files.cat_file(f"{bucket}/labels/0.parquet", start=1, end=3) == b"at"
    assert files.ls(f"{bucket}/labels") == [f"{bucket}/labels/0.parquet"]
    assert [(request.method, request.kind, request.size) for request in fault_proxy.requests] == [
        ("PUT", "/*/labels/*.parquet", 4),
        ("HEAD", "/*/labels/*.parquet", 0),
        ("GET", "/*/labels/*.parquet", 0),
        ("GET", "/*?prefix=labels/", 0),
    ]
    assert [request.reply_size for request in fault_proxy.requests][:3] == [0, 0, 2]
