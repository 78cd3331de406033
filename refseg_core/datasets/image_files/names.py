"""What the file of an image may be called: a path below its folder or prefix that means the same everywhere."""

import re

BAD_FILE_NAME = "an image's file_name is not a path below the image folder: expected such as 'folder/name.jpg'"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:")
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
