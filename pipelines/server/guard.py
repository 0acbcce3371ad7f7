"""What stands before every route: who may ask, from where, how much, and how long it may take."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.server.refusals import RefusedError

log = logging.getLogger(__name__)
OPEN = ("/health",)  # needs no token: what starts and stops servers asks it
LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d+)?")


@dataclass(frozen=True)
class Bounds:
    """What a request may take.

    Attributes:
        token: that it must bear; "" for none.
        hosts: names by which a server without a token is asked, so that no page in a browser reaches it by another;
            () for any.
        body_bytes: of its body.
        body_seconds: until that is there.
        seconds: for all of it, its answer being read included.
    """

    token: str
    hosts: tuple[str, ...]
    body_bytes: int
    body_seconds: float
    seconds: float


Count = Callable[[str, int, float], None]
"""Told the path, the status and the seconds of each request."""


class Guard:
    """An application behind these bounds."""

    def __init__(self, app: ASGIApp, bounds: Bounds, count: Count) -> None:
        self._app, self._bounds, self._count = app, bounds, count
        self._expected = f"Bearer {bounds.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            async with asyncio.timeout(self._bounds.seconds):
                try:
                    self._check(scope)
                    body = await self._body(scope, receive)
                    await self._app(scope, _replay(body, receive), sending)
                except RefusedError as error:
                    await error.response()(scope, receive, sending)
        except TimeoutError:
            if status:  # whoever asked reads too slowly; the server closes the connection of an answer without an end
                log.warning("an answer was not read in time")
                raise
            late = RefusedError(504, f"an answer must be there in {self._bounds.seconds:g} s", code="timeout")
            await late.response()(scope, receive, sending)
        finally:
            self._count(scope["path"], status, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        named = _HOST.fullmatch(host)
        if self._bounds.hosts and (named is None or named[1] not in self._bounds.hosts):
            raise RefusedError(400, f"a server without a token is asked as localhost; got {host!r}", code="host")
        if self._bounds.token and scope["path"] not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                raise RefusedError(401, "a request needs the header Authorization: Bearer TOKEN", code="invalid_token")
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                raise RefusedError(415, f"a body must be application/json; got {kind.decode('latin-1')!r}")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._bounds.body_bytes:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._bounds.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the connection was closed before the body's end")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._bounds.body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedError(
                408, f"a body must be there in {self._bounds.body_seconds:g} s; send it faster", code="slow_body"
            ) from None

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"a body must have at most {self._bounds.body_bytes} bytes", code="body_too_large")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body in one piece, then what comes: that the connection was closed."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
