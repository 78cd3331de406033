"""What the file of an image may be called: a path below its folder or prefix that means the same everywhere.

Also which files are never data, and which file a name means that is written otherwise.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from posixpath import basename, normpath, splitext

BAD_FILE_NAME = "an image's file_name is not a path below the image folder: expected such as 'folder/name.jpg'"

UNUSABLE = "files whose names cannot be used: left out; rename them"
"""What files are called that `check_file_name` refuses, where they are told."""

OTHERWISE = "images whose names are written otherwise than those of their files: those files are taken"
"""What it is called where it is told."""

RESEMBLED = "images that are not there, while files resemble their names: none is taken; correct the names"
"""The same, of images that no file is or several may be."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_file_name(name: str) -> str | None:
    """Why `name` is not a path below an image folder or prefix, or None if it is one."""
    reasons = (
        (not name, "is empty"),
        ("\\" in name, "has a '\\'; folders are separated by '/'"),
        (name.startswith("/"), "is absolute"),
        (_SCHEME.match(name) or "::" in name, "is a URI"),
        (_DRIVE.match(name), "starts with a drive"),
        (".." in name.split("/"), "leaves its folder by '..'"),
        (_CONTROL.search(name), "has control characters"),
        (not is_unicode(name), "is not valid Unicode"),
    )
    return next((reason for wrong, reason in reasons if wrong), None)


def is_unicode(text: str) -> bool:
    """Returns whether the text can be written: json may hold lone halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


_LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx"}


def is_hidden(name: str) -> bool:
    """Returns whether a path is of what file managers, notebooks and archives leave behind, such as `._a.png`."""
    return any(part.startswith(".") or part.lower() in _LEFT_BEHIND for part in name.split("/"))


class ListedNames:
    """The names of the files that there are, to be found by names that are written otherwise."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._by_key: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_key.setdefault(plain_name(name), []).append(name)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        return regrouped(self._by_key, basename)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return regrouped(self._by_last_part, _stem)

    def find(self, name: str) -> str:
        """Returns the file that a name means; the name itself where no file, or more than one, fits.

        A file of the very name comes first; then one that differs by './', by a '\\' for '/', by how accents are
        composed, or by case.
        """
        if name in self._names:
            return name
        found = self._by_key.get(plain_name(name), [])
        plain = normpath(name.replace("\\", "/"))
        return plain if plain in found else found[0] if len(found) == 1 else name

    def resembling(self, name: str) -> list[str]:
        """Returns the files that a name may mean that none has: written otherwise, or else in other folders.

        Or else those with another suffix, or that an address writes with '%'.
        """
        key = plain_name(_decoded(name).strip())
        last = basename(key)
        return self._by_key.get(key) or self._by_last_part.get(last) or self._by_stem.get(_stem(last), [])


def regrouped(names_by_key: Mapping[str, list[str]], rougher: Callable[[str], str]) -> dict[str, list[str]]:
    """Returns the names by a rougher key, which several keys may share."""
    names: dict[str, list[str]] = defaultdict(list)
    for key, own in names_by_key.items():
        names[rougher(key)] += own
    return names


def _decoded(name: str) -> str:
    """Returns a name with what addresses write with '%' as the characters that it stands for."""
    encoded = name.encode("utf-8", "replace")
    return _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), encoded).decode("utf-8", "replace")


def _stem(name: str) -> str:
    return splitext(name)[0]


def plain_name(name: str) -> str:
    """Returns a name without the differences that people do not see or mean: './', '\\', accents, case."""
    return unicodedata.normalize("NFC", normpath(name.replace("\\", "/"))).casefold()
