"""The server below the service and the page: how many connections there are, and for how long.

uvicorn limits neither the time that a head or an unread body takes to arrive nor a reader that does not read, and
answers 503 only after a complete head. Here every connection has a timer from its first moment on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unival.errors import ConfigError
from unival.serve.limits import ServiceLimits

_log = logging.getLogger("unival.serve")
_ACCEPTED = 8  # connections that asyncio accepts in one of its rounds; it takes some rounds to end one
_WAITING = 128  # connections that the system keeps until then
_SPARE = 32  # descriptors for media that are read
_FAREWELL = 2.0  # seconds in which a client that is sent away can read why
_QUIET = 60.0  # seconds between two equal messages in the log


class Server(uvicorn.Server):
    """uvicorn with limits on its connections; a log of one line for each kind of trouble in a minute.

    app: an ASGI application; leaving: called before open connections are waited for. ``most``: connections at once,
    fewer than asked for where descriptors are few. Raises ConfigError when there are too few for a single one.
    """

    def __init__(self, app: Any, limits: ServiceLimits, leaving: Callable[[], None] = lambda: None) -> None:
        self.most, self.leaving = room(limits.connections), leaving

        class Limited(Connection):
            bounds, most = limits, self.most

        super().__init__(
            uvicorn.Config(
                app,
                http=Limited,
                ws="none",
                log_level="error",
                server_header=False,
                backlog=_ACCEPTED,
                timeout_graceful_shutdown=limits.answer_seconds,
            )
        )
        for name in ("uvicorn.error", _log.name):
            logger = logging.getLogger(name)
            if not any(isinstance(known, Seldom) for known in logger.filters):
                logger.addFilter(Seldom())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        asyncio.get_running_loop().set_exception_handler(_note)
        await super().startup(sockets)
        for opened in sockets or ():
            opened.listen(_WAITING)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has arrived, then end."""
        self.leaving()
        await super().shutdown(sockets)


def room(wanted: int) -> int:
    """Return for how many connections there are descriptors, at most ``wanted``; raises the soft limit if needed."""
    kept = len(os.listdir("/proc/self/fd")) + 6 * _ACCEPTED + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < kept + wanted:
        soft = kept + wanted if hard == resource.RLIM_INFINITY else min(hard, kept + wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft <= kept:
            raise ConfigError(
                f"the limit of open files is {soft}, and {kept} are needed before the first connection: raise it "
                f"(ulimit -n {kept + wanted})"
            )
        if soft < kept + wanted:
            _log.warning(
                "at most %d connections at once, not %d: the limit of open files is %d (ulimit -n)",
                soft - kept,
                wanted,
                soft,
            )
        return min(wanted, soft - kept)
    return wanted


class Connection(H11Protocol):
    """One connection. ``bounds``: what it may take; ``most``: how many there may be."""

    bounds: ServiceLimits
    most: int
    _timer: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or send it away when all places are taken."""
        super().connection_made(transport)
        if len(self.connections) <= self.most:
            self._after(self.bounds.head_seconds, self._late)
        elif len(self.connections) <= self.most + _ACCEPTED:
            self._send_away(503, f"all {self.most} connections are taken: try again")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._after(0, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if not self._refused:
            before = self.cycle
            super().data_received(data)
            self._begun(before)

    def on_response_complete(self) -> None:
        """Wait for the next request, or shortly for the rest of a body that nobody wanted."""
        before = self.cycle
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._after(_FAREWELL, self.transport.abort)
        elif self.cycle is before:
            self._after(self.bounds.head_seconds, self._late)
        self._begun(before)

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._after(self.bounds.upload_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._after(0, None)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request as all other errors are answered."""
        started = self.cycle is not None and not self.cycle.response_complete
        self.transport.abort() if started else self._send_away(400, msg)

    def _begun(self, before: Any) -> None:
        if self.cycle is not before:
            # the application has its own limits, and ends earlier
            whole = self.bounds.upload_seconds + self.bounds.answer_seconds + _FAREWELL
            self._after(whole, self._overdue)

    def _late(self) -> None:
        # on a busy machine what was sent may have arrived without being read
        self._after(_FAREWELL, self._too_late)

    def _too_late(self) -> None:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self._after(self.bounds.upload_seconds, self.transport.abort)  # a slow reader of the last answer
        elif self.conn.trailing_data[0]:
            self._send_away(408, f"no head of a request within {self.bounds.head_seconds} seconds")
        else:
            self.transport.abort()

    def _overdue(self) -> None:
        if not self.cycle.response_started:  # a stream of the page may last
            self.transport.abort()

    def _send_away(self, status: int, message: str) -> None:
        """Answer without a request, and close as soon as that can have been read."""
        self._refused = True
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message}).encode()
        again = b"Retry-After: 1\r\n" if status == 503 else b""
        words = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s"
            % (status, words[status], len(body), again, body)
        )
        with contextlib.suppress(OSError):  # the client is gone
            self.transport.write_eof()
        self._after(_FAREWELL, self.transport.abort)

    def _after(self, seconds: float, call: Callable[[], None] | None) -> None:
        """Set the one timer of the connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, call) if call is not None else None


class Seldom(logging.Filter):
    """Lets a message pass once a minute and says how often it came in between."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Any, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        key, now = (record.getMessage()[:200], type(error)), time.monotonic()
        since, missed = self._seen.get(key, (now - _QUIET, 0))
        if now - since < _QUIET:
            self._seen[key] = since, missed + 1
            return False
        if len(self._seen) > 100:
            self._seen.clear()
        self._seen[key] = now, 0
        if missed:
            record.msg, record.args = f"{record.getMessage()} (and {missed} more like it before)", None
        return True


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line what went wrong outside of a request."""
    error = context.get("exception")
    what = "" if error is None else f": {type(error).__name__}: {error}"
    _log.warning("%s%s", context.get("message", "trouble"), what)
