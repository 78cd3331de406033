"""The Prefect server that PREFECT_API_URL names, for commands that cannot do without one."""

import http.client
import os
import urllib.error
import urllib.request

from refseg_core.errors import ConfigurationError
from tasks.storage.uris import redact

_SECONDS = 5.0


def answers(url: str, seconds: float = _SECONDS) -> bool:
    """Whether a server answers there, be it that it wants to know who asks."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        return error.code < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException, ValueError):
        return False


def require_api() -> str:
    """The server's address. Raises ConfigurationError where none is named, or where it does not answer."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set, so there is no Prefect server to turn to. Where `refseg service up` runs, "
            "`. ~/.refseg-service/env.sh` sets it; from elsewhere: export PREFECT_API_URL=http://THAT-MACHINE:4200/api"
        )
    if not answers(f"{url}/health"):
        raise ConfigurationError(
            f"PREFECT_API_URL: no Prefect server answers at {redact(url)}. `refseg service status` on its machine "
            "says whether it runs; one that other machines shall reach is started with --host 0.0.0.0."
        )
    return url


def ui_address(api_url: str) -> str:
    """Where people look at that server."""
    return api_url.removesuffix("/api")
