"""HTTP/1.1 messages as bytes, for those that pass them on: what they hold is looked at, never changed."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

_BLOCK = 1 << 16
_LONGEST_HEAD = 1 << 20


@dataclass(frozen=True)
class Head:
    """What stands before the body of a request or reply: the first line and the headers."""

    raw: bytes

    @cached_property
    def first_line(self) -> list[str]:
        """Three parts: of a request method, target and version, of a reply version, status and reason."""
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Values by name, both in lower case."""
        lines = self.raw.decode("latin-1").lower().split("\r\n")[1:]
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def status(self) -> int:
        """A reply's status."""
        return int(self.first_line[1])

    @property
    def is_chunked(self) -> bool:
        """Whether the body says its length as it goes."""
        return "chunked" in self.headers.get("transfer-encoding", "")

    @property
    def content_length(self) -> int | None:
        """The body's promised bytes."""
        length = self.headers.get("content-length")
        return None if length is None or self.is_chunked else int(length)

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends the body only when the server asks for it."""
        return self.headers.get("expect") == "100-continue"

    @property
    def closes(self) -> bool:
        """Whether the connection ends after the message."""
        return "close" in self.headers.get("connection", "") or "HTTP/1.0" in self.first_line

    @property
    def is_delimited(self) -> bool:
        """Whether a body that follows ends before the connection does."""
        return self.is_chunked or self.content_length is not None

    def has_body_after(self, method: str) -> bool:
        """Whether a body follows if this is the reply to a request of the given method."""
        return method != "HEAD" and self.status >= 200 and self.status not in (204, 304) and self.content_length != 0


class Peer:
    """One end of a connection. Raises OSError where the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._unread = bytearray()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For `select`, which knows nothing of what was received but not read."""
        return self.socket.fileno()

    @property
    def has_unread(self) -> bool:
        """Whether something was received that nobody read yet."""
        return bool(self._unread)

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self.socket.sendall(data)

    def read_head(self) -> Head:
        """The next message's head."""
        return Head(self._read_until(b"\r\n\r\n"))

    def read_request_body(self, head: Head) -> Iterator[bytes]:
        """The body block by block, as it is on the wire."""
        return self._read_chunks() if head.is_chunked else self._read(head.content_length or 0)

    def read_reply_body(self, head: Head) -> Iterator[bytes]:
        """The body block by block, as it is on the wire, where there is one."""
        if head.is_chunked:
            return self._read_chunks()
        return self._read_to_the_end() if head.content_length is None else self._read(head.content_length)

    def reset(self) -> None:
        """Ends the connection so that the other end sees it broken, not finished."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _read_chunks(self) -> Iterator[bytes]:
        size = -1
        while size != 0:
            line = self._read_until(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            if size:
                yield from self._read(size + len(b"\r\n"))
        while (trailer := self._read_until(b"\r\n")) != b"\r\n":
            yield trailer
        yield trailer

    def _read(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if not self._unread:
                self._receive()
            block = bytes(self._unread[:size])
            del self._unread[:size]
            size -= len(block)
            yield block

    def _read_to_the_end(self) -> Iterator[bytes]:
        yield bytes(self._unread)
        self._unread.clear()
        while block := self.socket.recv(_BLOCK):
            yield block

    def _read_until(self, mark: bytes) -> bytes:
        while (found := self._unread.find(mark)) < 0:
            if len(self._unread) > _LONGEST_HEAD:
                raise ConnectionError("no end of the head in sight")
            self._receive()
        end = found + len(mark)
        data = bytes(self._unread[:end])
        del self._unread[:end]
        return data

    def _receive(self) -> None:
        block = self.socket.recv(_BLOCK)
        if not block:
            raise ConnectionError("the other end closed the connection")
        self._unread += block
