"""Clients that are slow, many, heavy or gone: each is bounded, and the log stays short."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service_fixtures import post, serving
from unival.predict.predictor import Predictor
from unival.serve import ServiceLimits

HEAD = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def strict(predictor: Predictor) -> Iterator[str]:
    """A server for four connections, with little patience."""
    with serving(predictor, ServiceLimits(connections=4, head_seconds=1, upload_seconds=2)) as url:
        yield url


def _connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def test_slow_heads_and_idle_connections_end(strict):
    for sent, status in ((b"", b""), (b"POST /cap", b" 408 "), (HEAD, b" 408 ")):
        with _connect(strict) as connection:
            connection.sendall(sent)
            begun = time.monotonic()
            answer = _all(connection)
            assert status in answer and bool(answer) == bool(status)
            assert time.monotonic() - begun < 15


def test_a_head_that_drips_ends(strict):
    with _connect(strict) as connection:
        for byte in HEAD * 99:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a head was read for minutes")


def test_a_body_that_nobody_reads_ends(strict):
    """The answer is there at once; what follows is not listened to for long."""
    with _connect(strict) as connection:
        connection.sendall(HEAD.replace(b"/caption", b"/nowhere") + b"Content-Length: 9000\r\n\r\n")
        assert b" 404 " in connection.recv(65536)
        for _ in range(300):
            try:
                connection.sendall(b"x")
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a body was read for half a minute behind its answer")


def test_one_connection_too_many_is_told_so(strict, media):
    waiting = [_connect(strict) for _ in range(4)]
    time.sleep(0.2)
    with _connect(strict) as fifth:
        answer = _all(fifth)
    assert b" 503 " in answer and b"Retry-After: 1" in answer and b"all 4 connections are taken" in answer
    for connection in waiting:
        connection.close()
    time.sleep(0.2)
    assert post(f"{strict}/caption", (media / "a.png").read_bytes()).status_code == 200


def test_what_is_no_request_is_answered_in_json(strict):
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"):
        with _connect(strict) as connection:
            connection.sendall(sent + b"\r\n\r\n")
            answer = _all(connection)
        assert b" 400 " in answer and b'{"error": ' in answer, answer


def test_answers_cost_their_number_times_their_length(address, predictor, media):
    """Twenty answers of 1,000 characters took 3.7 GB."""
    content = (media / "a.png").read_bytes()
    long = " ".join("abcdefghij"[: i % 9 + 1] for i in range(12))[:60]
    with serving(predictor, ServiceLimits(answer_tokens=50)) as url:
        refused = post(f"{url}/answer", content, question="what?", answers=[long, *"abcdefgh"])
        assert refused.status_code == 422 and "entries times tokens may be 50" in refused.json()["error"]
        assert post(f"{url}/answer", content, question="what?", answers=list("abcdefgh")).status_code == 200


def test_a_deadline_stops_the_model(predictor, media):
    """The place of what takes too long is free soon after, not when it would have ended."""
    content = (media / "a.png").read_bytes()
    limits = ServiceLimits(answers=10_000, answer_tokens=10**7, answer_seconds=1, text_length=500)
    heavy = [f"{number} " + "a b c d e f g h " * 10 + str(number) for number in range(1200)]
    with serving(predictor, limits) as url:
        begun = time.monotonic()
        body: dict[str, Any] = {"question": "what?", "answers": heavy}
        late = httpx.post(f"{url}/answer", files={"media": ("u", content)}, data=body, timeout=120)
        assert late.status_code == 504 and "more than 1 seconds" in late.json()["error"]
        while (
            post(f"{url}/caption", content).status_code != 200
        ):  # a busy machine takes a second for this too
            assert time.monotonic() - begun < 120
            time.sleep(0.5)


@pytest.mark.parametrize("descriptors", [64, 160])
def test_out_of_descriptors_the_log_stays_short(folder, media, descriptors):
    """Two hundred idle connections printed 22,532 tracebacks in ten seconds."""
    words = ["serve", str(folder), "--port", "0", "--device", "cpu", "--head-seconds", "4"]
    program = subprocess.Popen(
        ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "_", sys.executable, "-m", "unival", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert program.stdout is not None and program.stderr is not None
    try:
        line = program.stdout.readline()
        if not line:
            assert "the limit of open files is 64" in program.stderr.read() and program.wait(30) == 2
            assert descriptors == 64
            return
        address = line.split()[1]
        waiting = [_connect(address) for _ in range(200)]
        with _connect(address) as gone:  # in the middle of a body
            gone.sendall(HEAD + b"Content-Length: 90\r\n\r\n{")
        sent_away = sum(b" 503 " in _all(connection) for connection in waiting)
        assert sent_away
        for _ in range(20):
            with _connect(address) as connection:
                connection.sendall(b"rubbish\r\n\r\n")
        assert post(f"{address}/caption", Path(media / "a.png").read_bytes()).status_code == 200
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == 0
        said = program.stderr.read().splitlines()
        assert len(said) <= 3 and "connections at once" in said[0], said
    finally:
        program.kill()
