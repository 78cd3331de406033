"""How a run can end besides well."""


class ShardsFailedError(RuntimeError):
    """Some shards could not be labelled; the others are, and the same command goes on from there."""
