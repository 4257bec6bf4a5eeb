"""Access to the server: a browser that came with a token from the terminal, by an address that is ours.

Whoever can talk to it can read the volume and write the files that the command line named, so that each request is
checked: its Host against names that are ours (a page of a stranger could make its own name mean this machine), its
Origin wherever something can be changed, and a cookie that only a token gives. A token is good for one browser.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware that lets nobody in without a token.

    Parameters
    ----------
    app : ASGI application
    port : int
        Part of the cookie's name, as cookies of all ports of a machine are sent together.
    origins : sequence of str
        ``scheme://host[:port]`` under which browsers know the server.
    on_new_token : callable
        Called with a token that opens the page for one browser, first and whenever a used one was tried again.
    """

    def __init__(self, app: ASGIApp, *, port: int, origins: list[str], on_new_token: Callable[[str], None]) -> None:
        self._app, self._cookie = app, f"gpu_tomoclass_{port}"
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._hosts = {urlsplit(origin).netloc for origin in self._origins}
        self._on_new_token = on_new_token
        self._browsers: list[str] = []
        self._used: list[str] = []
        self._token = secrets.token_urlsafe(24)
        on_new_token(self._token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        if refused is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
        else:
            refused.headers.update(HEADERS)
            await refused(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who may not come in; None to who may."""
        if headers.get("host", "").lower() not in self._hosts:
            known = ", ".join(sorted(self._origins))
            return _say(f"The server is not known by this name, but by {known}. Behind a proxy give --origin.", 421)
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if changes and headers.get("origin", "").lower() not in self._origins:
            return _say("Only the page of this server may do that.", 403)
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if any(_same(cookie, browser) for browser in self._browsers):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["type"] == "http" and scope["method"] == "GET" and _same(given, self._token):
            return self._let_in()
        if any(_same(given, token) for token in self._used):
            self._new_token()
            return _say("This address was used by another browser. The terminal shows a new one.", 403)
        return _say("Open the address that the terminal shows.", 403)

    def _let_in(self) -> Response:
        self._used.append(self._token)
        self._browsers.append(secrets.token_urlsafe(32))
        self._token = secrets.token_urlsafe(24)
        answer = RedirectResponse("./", status_code=303)
        # No path: the browser takes the folder that it sees, which behind a proxy is not ours to know.
        answer.set_cookie(self._cookie, self._browsers[-1], httponly=True, samesite="strict", path=None)
        return answer

    def _new_token(self) -> None:
        self._token = secrets.token_urlsafe(24)
        self._on_new_token(self._token)


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def _say(text: str, status: int) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)


def _with_headers(send: Send) -> Send:
    async def add(message: dict) -> None:  # type: ignore[type-arg]
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return add  # type: ignore[return-value]
