"""How a run can end besides well."""

from collections.abc import Mapping


class RunFailedError(RuntimeError):
    """A run could not be ended; what is done is kept, and the same command goes on from there."""


class ShardsFailedError(RunFailedError):
    """Some shards could not be labeled; the others are. `reason_of` says why, by the shards' names."""

    def __init__(self, message: str, reason_of: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason_of = dict(reason_of or {})


class BankFailedError(RunFailedError):
    """No worker could build the memory bank."""
