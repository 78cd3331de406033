"""Where the files lie that come with refseg and are no Python."""

from importlib import resources
from pathlib import Path


def deployment_files() -> Path:
    """The folder `deployments`, which is installed beside `flows`, as it stands beside it in a checkout."""
    return Path(str(resources.files("flows"))).parent / "deployments"
