"""Errors that end a run or a command of the service."""

from collections.abc import Mapping
from typing import Self

from refseg_core.errors import counted

_NAMES_SHOWN = 8


class RunFailedError(RuntimeError):
    """A run could not be completed; finished work is kept, and the same command resumes it."""


class ShardsFailedError(RunFailedError):
    """Some shards could not be labeled; the others are. `reason_of` maps their names to the reasons."""

    def __init__(self, message: str, reason_of: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason_of = dict(reason_of or {})

    @classmethod
    def of(cls, reason_of: Mapping[str, str], num_shards: int) -> Self:
        """Names some of the shards that failed, and the reason of the first."""
        return cls(
            f"{len(reason_of)} of {counted(num_shards, 'shard')} could not be labeled: "
            f"{', '.join(list(reason_of)[:_NAMES_SHOWN])}. The first: {next(iter(reason_of.values())).rstrip('.')}. "
            "Finished shards are kept; the same command resumes.",
            reason_of,
        )


class BankFailedError(RunFailedError):
    """No worker could build the memory bank."""
