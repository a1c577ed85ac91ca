"""The service: one endpoint per task, health, and errors as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from unival import __version__
from unival.errors import ConfigError, DataError, OverdueError, UnivalError
from unival.media import MediaError
from unival.serve import upload
from unival.serve.endpoints import Endpoint, ErrorReply, endpoints
from unival.serve.limits import ServiceLimits
from unival.serve.workqueue import Busy, WorkQueue

if TYPE_CHECKING:
    from unival.predict.predictor import Predictor

# what a client got wrong -> status
FAULTS: dict[type[UnivalError], int] = {MediaError: 422, DataError: 422, ConfigError: 400, OverdueError: 504}
_MEANINGS = {
    400: "A modality that the task or the model does not have, or a broken body",
    408: "The request took too long to arrive",
    413: "The request is too large",
    415: "A content type that is not read",
    422: "Media that cannot be read, or fields that are wrong",
    503: "All places are taken; Retry-After says when to come back",
    504: "The model was stopped, since the answer took too long",
}
_SHOWN = ("family", "size", "parameters", "device", "precision", "modalities", "video", "audio")


class QueueState(BaseModel):
    """Requests in the service, and how many there may be."""

    taken: int
    places: int
    workers: int


class Health(BaseModel):
    """What runs here."""

    status: str
    version: str
    checkpoint: str
    model: dict[str, Any]
    queue: QueueState
    limits: dict[str, int]


def create_app(predictor: Predictor, limits: ServiceLimits | None = None) -> FastAPI:
    """Return the ASGI application of a predictor.

    Limits of media are the predictor's own: ``unival.load(..., limits=limits.media())``. The application
    answers POST /caption, /answer, /ground, /entails, /matches, /encode and GET /health; its schema is at
    /openapi.json. No request can name a file or an address.
    """
    limits = limits or ServiceLimits()
    queue = WorkQueue(limits.workers, limits.queue, limits.answer_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    # the pages of FastAPI's documentation load scripts from elsewhere
    app = FastAPI(title="UnIVAL", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(UnivalError, _faulty)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(Exception, _failed)
    for endpoint in endpoints():
        _add(app, endpoint, predictor, queue, limits)
    info = predictor.info
    shown = {name: info[name] for name in _SHOWN}

    @app.get("/health", summary="What runs here, and how busy it is.")
    async def health() -> Health:
        return Health(
            status="ok",
            version=__version__,
            checkpoint=Path(predictor.name).name,
            model=shown,
            queue=QueueState(taken=queue.taken, places=queue.places, workers=queue.workers),
            limits=dataclasses.asdict(limits),
        )

    return app


def _add(
    app: FastAPI, endpoint: Endpoint, predictor: Predictor, queue: WorkQueue, limits: ServiceLimits
) -> None:
    fields = endpoint.fields(limits)

    async def respond(request: Request) -> Any:
        async def receive() -> Callable[[], BaseModel]:
            media, given = await upload.read(request, fields, limits)
            return partial(endpoint.answer, predictor, limits, media, given)

        return await queue.run(receive)

    app.post(
        f"/{endpoint.name}",
        name=endpoint.name,
        summary=endpoint.summary,
        response_model=endpoint.reply_model,
        responses={code: {"model": ErrorReply, "description": text} for code, text in _MEANINGS.items()},
        openapi_extra={"requestBody": {"required": True, "content": upload.content(fields)}},
    )(respond)


def _error(status: int, message: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return _error(error.status_code, str(error.detail), error.headers)


async def _faulty(request: Request, error: Exception) -> JSONResponse:
    for kind, status in FAULTS.items():
        if isinstance(error, kind):
            return _error(status, str(error))
    return await _failed(request, error)


async def _busy(_: Request, error: Exception) -> JSONResponse:
    return _error(503, str(error), {"Retry-After": "1"})


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return _error(500, "the service failed on this request; its log says why")
