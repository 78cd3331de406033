"""How often this process looks for garbage: seldom, since what it imports is none and takes seconds to look through."""

import atexit
import gc

_NUM_NEW_OBJECTS = 50_000  # Python's own number is made for programs of hundreds


def collect_seldom() -> None:
    """Has garbage be collected after more new objects than usual, and what is left not be looked through at the end."""
    gc.set_threshold(_NUM_NEW_OBJECTS)
    atexit.register(gc.freeze)
