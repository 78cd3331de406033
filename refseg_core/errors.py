"""The errors that a user can act on, and `Problems`, which reports all that is wrong with one input together.

Each names the thing, what was expected, what came and what to do. Anything else that is raised is a bug
or a failure of network or disk, which callers may retry; these are never retried.

A kind of problem is a sentence that says what is wrong, what was expected and what to do; it is written in the module
that finds it. An offender is the place and value where it was found.
"""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class RefsegError(Exception):
    """A permanent error: repeating the same call fails the same way."""


class ConfigurationError(RefsegError):
    """A key, value or combination in a run configuration is wrong."""


class ConflictError(ConfigurationError):
    """What is asked for contradicts what is there by the same id."""


class DatasetError(RefsegError):
    """Annotations or an image listing are wrong, or lack something that the configuration names."""


class UnusableReferenceError(DatasetError):
    """A reference's mask, box or points cover nothing of its image."""


class WeightsError(RefsegError):
    """Model weights are missing, damaged or do not fit the architecture."""


class ImageError(RefsegError):
    """One image cannot be read; the run continues without it."""


class StoreError(RefsegError):
    """The store cannot be used: unreachable, denied, damaged or incomplete."""


class NoSpaceError(StoreError):
    """The place of a store is full, or a quota of it is used up."""


class NotFoundError(StoreError):
    """An object or folder is not there, though the place where it should be can be read."""


_OFFENDERS_SHOWN = 5
_KINDS_SHOWN = 12
_OFFENDER_LENGTH = 80
_USER = re.compile(r"//[^/\s'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?#]*)[?#][^\s'\"]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200


@dataclass
class Problems:
    """The problems of one input: of each kind its count and the first few offenders."""

    counts: Counter[str] = field(default_factory=Counter)
    offenders: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, offender: str) -> None:
        """Adds one problem."""
        self.counts[kind] += 1
        if self.counts[kind] <= _OFFENDERS_SHOWN:
            self.offenders.setdefault(kind, []).append(shortened(offender))

    def add_all(self, kind: str, offenders: Sequence[str]) -> None:
        """Adds several problems of one kind."""
        for offender in offenders:
            self.add(kind, offender)

    def add_repeated(self, kind: str, values: Sequence[str]) -> None:
        """Adds each value that occurs more than once."""
        if len(set(values)) < len(values):
            self.add_all(kind, [value for value, count in Counter(values).items() if count > 1])

    def raise_if_any(self, source: str) -> None:
        """Raises DatasetError with all problems, if there are any; `source` names the input."""
        if not self.counts:
            return
        lines = []
        for kind, count in list(self.counts.items())[:_KINDS_SHOWN]:
            rest = f" and {count - _OFFENDERS_SHOWN} more" if count > _OFFENDERS_SHOWN else ""
            end = "" if kind.endswith("?") else "."
            lines.append(f"- {count} x {kind}{end} Found: {', '.join(self.offenders[kind])}{rest}")
        if len(self.counts) > _KINDS_SHOWN:
            lines.append(f"- and {len(self.counts) - _KINDS_SHOWN} more kinds of problems")
        total = self.counts.total()
        raise DatasetError(f"{source} cannot be used; {counted(total, 'problem')}:\n" + "\n".join(lines))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a number of things for a message: '1 image', '1,200 images'; `plural`: where it is not noun and s."""
    return f"{number:,} {noun if number == 1 else plural or _plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def singular(plural: str) -> str:
    """Returns what one of a kind is called: 'image' for 'images', 'category' for 'categories'."""
    if plural.endswith("ies"):
        return f"{plural[:-3]}y"
    return plural.removesuffix("es") if plural.endswith(("xes", "sses")) else plural.removesuffix("s")


def listed(names: Iterable[str], most: int = 8) -> str:
    """Returns the first names, and how many more there are, for a message."""
    known = list(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most:,} more" if len(known) > most else "")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Returns names sorted with the numbers in them as numbers: a2 before a10."""

    def parts(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(re.split(r"([0-9]+)", name))]

    return sorted(names, key=parts)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a sentence, after a space, with the known name that the given one resembles most; '' without any."""
    of_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), of_lower, n=1)
    return f" Did you mean {of_lower[close[0]]}?" if close else ""


def brief(value: object) -> str:
    """Returns a value as it is written in Python, for a message: short and without secrets, whatever it holds."""
    return redact_text(_BRIEF.repr(redact_text(value) if isinstance(value, str) else value))


def shortened(text: str, most: int = _OFFENDER_LENGTH) -> str:
    """Returns the text printable, shortened and without secrets of addresses, for a message."""
    shown = printable(redact_text(text))
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def printable(text: str, *, kept: str = "") -> str:
    """Returns the text with control characters, which may steer a terminal, and halves of characters escaped.

    `kept`: control characters that stay as they are.
    """
    escaped = _CONTROL.sub(lambda found: found[0] if found[0] in kept else repr(found[0])[1:-1], text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def redact_text(text: str) -> str:
    """Returns the text with every URI in it without user, password, query and fragment, which may be secret.

    For what others wrote: a library's error, or a name in a file.
    """
    return _QUERY.sub(r"\1", _USER.sub("//", text))
