"""The Prefect server at PREFECT_API_URL, for commands that need one."""

import http.client
import os
import urllib.error
import urllib.request

from refseg_core.errors import ConfigurationError
from tasks.storage.uris import redact

_SECONDS = 5.0


def answers(url: str, seconds: float = _SECONDS) -> bool:
    """Whether a server answers at the URL, even if it requires a login."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError as error:
        return error.code < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException, ValueError):
        return False


def require_api() -> str:
    """Returns the server's URL. Raises ConfigurationError if it is not set or does not answer."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set, and the command needs a Prefect server. Where `refseg service up` runs, "
            "`. ~/.refseg-service/env.sh` sets it; from elsewhere: export PREFECT_API_URL=http://THAT-MACHINE:4200/api"
        )
    if not answers(f"{url}/health"):
        raise ConfigurationError(
            f"PREFECT_API_URL: no Prefect server answers at {redact(url)}. `refseg service status` on its machine "
            "shows whether it runs; for other machines it has to be started with --host 0.0.0.0."
        )
    return url


def ui_address(api_url: str) -> str:
    """Returns the URL of the server's UI."""
    return api_url.removesuffix("/api")
