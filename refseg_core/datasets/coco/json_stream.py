"""Json read value by value through a sliding window, so that a document never stands in memory as objects.

Here: which characters may follow, and where a document stops being json. Not here: what the values mean.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

_WINDOW = 1 << 22  # bytes decoded at once
_WHITESPACE = re.compile(r"[ \t\n\r]*")


class JsonError(ValueError):
    """Where and how a document stops being json."""


class JsonReader:
    """Values of a json document one after the other, with only a window of it decoded.

    Every method raises JsonError where the document is not json, and UnicodeDecodeError where it is not text.
    """

    def __init__(self, document: bytes) -> None:
        self._document = memoryview(document)
        self._decode = codecs.getincrementaldecoder(json.detect_encoding(document))().decode
        self._parse = json.JSONDecoder().raw_decode
        self._num_read = 0
        self._text = ""
        self._at = 0

    def value(self) -> Any:
        """Returns the next value, parsed."""
        while True:
            self.peek()
            try:
                value, end = self._parse(self._text, self._at)
            except (ValueError, RecursionError) as error:  # cut off by the window, or really wrong
                if not self._read_on():
                    raise self._error("a json value" if isinstance(error, ValueError) else "less nesting") from error
                continue
            # A number that ends where the window does, or before a last "." or "e-", may go on behind it.
            if end + 2 < len(self._text) or not self._read_on():
                self._at = end
                return value

    def peek(self) -> str:
        """Returns the next character that is not white space, without taking it; '' at the end."""
        while True:
            match = _WHITESPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def end(self) -> None:
        """Makes sure that nothing follows."""
        if self.peek():
            raise self._error("the end of the file")

    def members(self) -> Iterator[str]:
        """Yields the keys of an object; the caller takes each key's value before the next."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                self._take('"')
            key: str = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def items(self) -> Iterator[Any]:
        """Yields the items of a list."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def _take(self, expected: str) -> str:
        """Returns the next character, which must be among `expected`."""
        character = self.peek()
        if not character or character not in expected:
            raise self._error(" or ".join(repr(one) for one in expected))
        self._at += 1
        return character

    def _read_on(self) -> bool:
        """Decodes further, doubling what is left, so that one huge value is not parsed again and again."""
        if self._num_read >= len(self._document):
            return False
        left = self._text[self._at :]
        stop = self._num_read + max(_WINDOW, len(left))
        block = self._document[self._num_read : stop]
        self._text = left + self._decode(block, stop >= len(self._document))
        self._at = 0
        self._num_read += len(block)
        return True

    def _error(self, expected: str) -> JsonError:
        found = self._text[self._at : self._at + 30]
        position = self._num_read - len(self._text[self._at :].encode("utf-8", "surrogatepass"))
        return JsonError(f"expected {expected} near byte {max(position, 0)}, got {found!r}")
