"""From a request to a medium and fields, within limits that hold while it is received."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError, create_model
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

from unival.serve.limits import ServiceLimits

Fields = TypeVar("Fields", bound=BaseModel)
JSON, FORM = "application/json", "multipart/form-data"
_MEDIA = "media"  # the field of the file, in both forms


def with_base64(fields: type[Fields]) -> type[Fields]:
    """Return the model of a JSON request: the fields, and the medium as base64."""
    return create_model(fields.__name__, __base__=fields, **{_MEDIA: (str, ...)})  # type: ignore[call-overload]


def content(fields: type[BaseModel]) -> dict[str, Any]:
    """Describe both forms of a request, for the OpenAPI schema."""
    as_json = with_base64(fields).model_json_schema()
    as_json["properties"][_MEDIA] |= {"contentEncoding": "base64", "description": "the file's content"}
    form = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "the file"}
    form["properties"] = {_MEDIA: file, **form.get("properties", {})}
    form["required"] = [_MEDIA, *form.get("required", [])]
    return {JSON: {"schema": as_json}, FORM: {"schema": form}}


async def read(request: Request, fields: type[Fields], limits: ServiceLimits) -> tuple[bytes, Fields]:
    """Return the medium's content and the checked fields of a request.

    Raises HTTPException: 408 too slow, 413 too large (as soon as that is known), 415 another content type,
    400 broken multipart, 422 fields that are absent, unknown, too long or of the wrong type.
    """
    try:
        return await asyncio.wait_for(_read(_bounded(request, limits), fields, limits), limits.upload_seconds)
    except asyncio.TimeoutError:
        raise HTTPException(
            408, f"the request did not arrive within {limits.upload_seconds} seconds"
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before its body did") from None


def _bounded(request: Request, limits: ServiceLimits) -> Request:
    """Return the request with a body that ends in an error at the limit."""
    too_large = HTTPException(
        413, f"the request is larger than {limits.upload_bytes} bytes, the limit: send a smaller file"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.upload_bytes:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limits.upload_bytes:
            raise too_large
        return message

    return Request(request.scope, receive)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn complaints about fields into one line."""
    try:
        yield
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"]])) for e in found[:5]]
        raise HTTPException(422, "; ".join(lines)[:1000]) from None


async def _read(request: Request, fields: type[Fields], limits: ServiceLimits) -> tuple[bytes, Fields]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        with _refusals():
            given = with_base64(fields).model_validate_json(await request.body(), strict=True)
        return _decoded(getattr(given, _MEDIA)), fields(**given.model_dump(exclude={_MEDIA}))
    if kind != FORM:
        raise HTTPException(415, f"content type '{kind[:100]}': send {FORM} or {JSON}")
    # a character takes up to four bytes
    async with request.form(
        max_files=1,
        max_fields=limits.answers + len(fields.model_fields),
        max_part_size=4 * limits.text_length,
    ) as form:
        file = form.get(_MEDIA)
        if not isinstance(file, UploadFile):
            raise HTTPException(422, f"{_MEDIA}: a file is needed here")
        media = await file.read()
        with _refusals():
            given_fields = fields.model_validate(_values(form, fields))
        return media, given_fields


def _values(form: FormData, fields: type[BaseModel]) -> dict[str, Any]:
    """Form fields as values: a field of the type list may be sent several times, others once."""
    values: dict[str, Any] = {}
    for name in form:
        if name == _MEDIA:
            continue
        sent = form.getlist(name)
        several = name == "answers" or len(sent) > 1
        values[name] = sent if several else sent[0]
    return values


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(
            422, f"{_MEDIA}: not the base64 of a file's content ({error}); paths and addresses are not read"
        ) from None
