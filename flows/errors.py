"""How a run can end besides well."""


class RunFailedError(RuntimeError):
    """A run could not be ended; what is done is kept, and the same command goes on from there."""


class ShardsFailedError(RunFailedError):
    """Some shards could not be labelled; the others are."""


class BankFailedError(RunFailedError):
    """No worker could build the memory bank."""
