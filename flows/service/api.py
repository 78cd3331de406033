"""The Prefect server at PREFECT_API_URL, for commands that need one."""

import base64
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from typing import Literal

from refseg_core.errors import ConfigurationError
from tasks.storage.uris import redact

log = logging.getLogger(__name__)

LOGIN_VARIABLE = "PREFECT_API_AUTH_STRING"
"""Prefect's variable for the user and password of its clients."""
_SECONDS = 5.0
_PATIENCE, _PAUSE = 30.0, 1.0  # s for a server that is there and slow, and between two questions
_GUARDED = "/admin/version"  # that a server with a login answers only with it


def answers(url: str, seconds: float = _SECONDS) -> bool:
    """Whether a server answers at the URL, even if it requires a login."""
    return _fault(url, seconds) is None


def _fault(url: str, seconds: float) -> Literal["absent", "busy"] | None:
    """Returns why no answer came, None where one did; who is busy takes the connection, and is slow or hangs up."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < http.client.INTERNAL_SERVER_ERROR else "busy"
    except urllib.error.URLError as error:  # while connecting and sending, which a server that is there takes at once
        return "busy" if isinstance(error.reason, ConnectionResetError | BrokenPipeError) else "absent"
    except (TimeoutError, ConnectionResetError):
        return "busy"
    except (OSError, http.client.HTTPException, ValueError):
        return "absent"


def check_answers(url: str, advice: str) -> None:
    """Raises ConfigurationError where no Prefect server answers at the URL; a busy one has half a minute.

    `advice`: what to do where there is none.
    """
    until = time.monotonic() + _PATIENCE
    fault = _fault(f"{url}/health", min(_SECONDS, _PATIENCE))
    if fault == "busy":
        log.warning("The Prefect server at %s takes long to answer; waiting up to %.0f s.", redact(url), _PATIENCE)
    while fault == "busy" and (left := until - time.monotonic()) > 0:
        time.sleep(min(_PAUSE, left))
        fault = _fault(f"{url}/health", max(left, _PAUSE))
    if fault == "absent":
        raise ConfigurationError(f"PREFECT_API_URL: no Prefect server answers at {redact(url)}. {advice}")
    if fault == "busy":
        raise ConfigurationError(
            f"PREFECT_API_URL: the server at {redact(url)} takes connections but gave no answer within {_PATIENCE:.0f} "
            "s: it is overloaded, or hangs. Try again later; `refseg service status` on its machine shows its state."
        )


def require_api() -> str:
    """Returns the server's URL. Raises ConfigurationError if it is not set or does not answer."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set, and the command needs a Prefect server. Where `refseg service up` runs, "
            "`. ~/.refseg-service/env.sh` sets it; from elsewhere: export PREFECT_API_URL=http://THAT-MACHINE:4200/api"
        )
    check_answers(
        url,
        "`refseg service status` on its machine shows whether it runs; for other machines it has to be started with "
        "--host 0.0.0.0.",
    )
    check_login(url)
    return url


def ui_path(url: str) -> str:
    """Returns where the UI that a Prefect server shows by default lies below its address: '/v2' or ''.

    The newer one asks whoever opens a run's page for a login, and then shows it; the older one says that there is no
    such page. A server that does not say which it is has the older one.
    """
    try:
        with urllib.request.urlopen(f"{url}/ui-settings", timeout=_SECONDS) as answer:
            settings = json.load(answer)
        return str(settings[f"{settings['default_ui']}_base_url"]).rstrip("/")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ""


def check_login(url: str) -> None:
    """Raises ConfigurationError where the server at the URL asks for a login that is not the one here."""
    if not _lets_in(f"{url}{_GUARDED}"):
        what = "does not fit" if LOGIN_VARIABLE in os.environ else "is not set"
        raise ConfigurationError(
            f"{LOGIN_VARIABLE} {what}: the Prefect server at {redact(url)} asks for a login. Where `refseg service up` "
            "runs, `. ~/.refseg-service/env.sh` sets it; for other machines copy it from there."
        )


def _lets_in(url: str) -> bool:
    """Whether the server answers other requests than those for its health."""
    login = base64.b64encode(os.environ.get(LOGIN_VARIABLE, "").encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code != http.client.UNAUTHORIZED
    except (OSError, http.client.HTTPException):
        return True  # it answered a moment ago; whatever is asked next says what is wrong


def ui_address(api_url: str) -> str:
    """Returns the URL of the server's UI."""
    return api_url.removesuffix("/api")
