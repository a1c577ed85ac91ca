"""Limits of what is sent to the page: size and time of a body, and how much of it is kept."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unival.serve.limits import ServiceLimits

KEPT = 40  # uploads of the largest size, all visitors together
_FORM = 1 << 16  # bytes of a form around its file


class BoundedBodies:
    """An ASGI application within limits. ``folder``: where it keeps uploads."""

    def __init__(self, app: ASGIApp, limits: ServiceLimits, folder: Path) -> None:
        self.app, self.limits, self.folder = app, limits, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it: 408 too slow, 413 too large, 503 no room for an upload."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith("/upload") and self._full():
            refusal = "too many files were uploaded lately: try again in some minutes"
            await self._refuse(503, refusal, scope, receive, send)
            return
        await self._within(scope, receive, send)

    def _full(self) -> bool:
        kept = 0
        for path in self.folder.rglob("*"):
            try:
                kept += path.stat().st_size
            except OSError:  # deleted meanwhile
                continue
        return kept > KEPT * self.limits.upload_bytes

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        most, until = self.limits.upload_bytes + _FORM, time.monotonic() + self.limits.upload_seconds
        received, complete, refusal = 0, False, None

        async def bounded() -> Message:
            nonlocal received, complete, refusal
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except asyncio.TimeoutError:
                refusal = 408, f"the request did not arrive within {self.limits.upload_seconds} seconds"
                return {"type": "http.disconnect"}
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > most:
                refusal = 413, f"the request is larger than {most} bytes, the limit: send a smaller file"
                return {"type": "http.disconnect"}
            return message

        async def unless_refused(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self.app(scope, bounded, unless_refused)
        except Exception:
            if refusal is None:
                raise
        if refusal is not None:
            await self._refuse(*refusal, scope, receive, send)

    async def _refuse(self, status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Retry-After": "60"} if status == 503 else None
        await JSONResponse({"error": text}, status, headers)(scope, receive, send)
