"""How the versions of several algorithms make one.

A module whose change makes stored results stale has a `VERSION` next to its code, counted up with every change of what
it computes (not of how fast). The recipe of what is stored holds the version of all that it is computed by, so that a
change makes new artifacts and leaves the old ones alone.
"""


def combined(*versions: int) -> int:
    """Returns one version for algorithms that work together: 1 where all are 1, and one more for each change of any."""
    return 1 + sum(version - 1 for version in versions)
