"""A small model behind a real server, and a client for it."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.released_files import OPTIONS, small_model
from unival.checkpoint import save_folder
from unival.predict.predictor import Predictor
from unival.serve import ServiceLimits, create_app
from unival.vocabulary import Vocabulary

LIMITS = ServiceLimits(
    upload_bytes=200_000,
    image_pixels=10_000,
    video_frames=20,
    audio_seconds=2,
    text_length=60,
    queue=2,
    upload_seconds=2,
)


def save(folder: Path, media: Path, **networks: str) -> Path:
    vocabulary = Vocabulary.load(media / "vocabulary")
    extra = {"task": {"name": "caption", "modality": "image"}, "task_options": OPTIONS}
    return save_folder(folder / "model", small_model(len(vocabulary), **networks), vocabulary, extra=extra)


@contextmanager
def serving(predictor: Predictor, limits: ServiceLimits) -> Iterator[str]:
    """Run a real server in a thread; yields its address."""
    from unival.cli.serve import listen
    from unival.serve.connections import Server

    opened = listen("127.0.0.1", 0)
    server = Server(create_app(predictor, limits), limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def as_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def post(url: str, file: Any = None, /, **fields: Any) -> Any:
    """Send a file and fields as multipart."""
    import httpx

    files = None if file is None else {"media": ("upload", file)}
    return httpx.post(url, files=files, data=fields, timeout=60)
