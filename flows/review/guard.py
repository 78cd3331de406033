"""Who may ask the server: the person who started it, by the token of the link that it printed.

A page of another site that a browser has open can send requests to this machine too. It has no token; the address that
it asks for may be a name that it made stand for this machine, which `Host` gives away; and what it sends names it in
`Origin`.
"""

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-refseg-token"
_COOKIE = "refseg_review"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_READING = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Lets requests through that come from the page itself, with its token; answers the others."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Returns what answers in the place of the page, or None where the request is let through."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] != "http" or not _is_local(headers.get("host", "")):
            return PlainTextResponse("This server answers at 127.0.0.1 only.", 403)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["path"] == "/" and self._is_token(given):
            return self._welcome(headers["host"])
        if not self._is_token(headers.get(TOKEN_HEADER) or _cookie(headers)):
            return PlainTextResponse("Open the link that `refseg review` printed: it holds the token.", 401)
        if scope["method"] not in _READING and not _is_own(headers):
            return PlainTextResponse("This request comes from another page.", 403)
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _welcome(self, host: str) -> ASGIApp:
        """Keeps the token in a cookie, so that it is not seen in the address.

        A link to the page on another one, such as Prefect's, brings it along ("lax"); what else another page asks for
        does not.
        """
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_cookie_name(host), self._token, httponly=True, samesite="lax", path="/")
        return answer


def _is_local(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return host in _LOCAL_NAMES or (name in _LOCAL_NAMES and port.isdecimal())


def _is_own(headers: Mapping[str, str]) -> bool:
    """Returns whether a request that changes something was sent by the page, or by a program that has the token."""
    origin = headers.get("origin")
    if origin is None:
        return TOKEN_HEADER in headers
    try:
        return urlsplit(origin).netloc == headers["host"]
    except ValueError:  # no address, as "http://[::1" is none
        return False


def _cookie_name(host: str) -> str:
    """Cookies are shared by all ports of a machine, so that each server has its own."""
    return f"{_COOKIE}_{host.rpartition(':')[2]}" if host[-1:].isdecimal() else _COOKIE


def _cookie(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers["host"]))
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_with_headers
