"""The errors a user can act on.

Each names the thing, what was expected, what came and what to do. Anything else that is raised is a bug
or a fault of the world (network, disk), which callers may retry; these are never retried.
"""


class RefsegError(Exception):
    """A permanent error: repeating the same call fails the same way."""


class ConfigurationError(RefsegError):
    """A key, value or combination in a run configuration is wrong."""


class DatasetError(RefsegError):
    """Annotations or an image listing are wrong, or do not hold what was asked for."""


class WeightsError(RefsegError):
    """Model weights are missing, damaged or do not fit the architecture."""


class ImageError(RefsegError):
    """One image cannot be read; the run goes on without it."""


class StoreError(RefsegError):
    """The store cannot be used as asked: unreachable, denied, damaged or incomplete."""


class NotFoundError(StoreError):
    """An object or folder is not there, though the place where it should be can be read."""
