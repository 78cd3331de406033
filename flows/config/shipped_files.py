"""The location of the installed files that are not Python."""

from importlib import resources
from pathlib import Path


def deployment_files() -> Path:
    """Returns the folder `deployments`, installed next to `flows` as in a checkout."""
    return Path(str(resources.files("flows"))).parent / "deployments"
