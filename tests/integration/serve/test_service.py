"""The JSON service over real connections: answers, refusals, limits."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import threading
import time

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.support.forks import forks
from tests.support.service_fixtures import as_base64, post, save, serving
from unival.errors import ConfigError
from unival.media import MediaError, read_video
from unival.predict.predictor import load
from unival.serve import ServiceLimits


def test_every_task_answers_as_the_predictor_does(address, predictor, media):
    picture, clip, sound = (str(media / name) for name in ("b.png", "clip.mp4", "sound.wav"))
    for path, modality in ((picture, "image"), (clip, "video"), (sound, "audio")):
        expected = predictor.caption(path, n_best=2)
        with open(path, "rb") as file:
            found = post(f"{address}/caption", file, n_best=2).json()
        assert (found["modality"], found["text"]) == (modality, expected.text)
        assert found["log_prob"] == pytest.approx(expected.log_prob, abs=1e-5)
        assert [one["text"] for one in found["n_best"]] == [text for text, _ in expected.n_best]
    content = (media / "b.png").read_bytes()
    answers = ["yes", "no", "two"]
    expected = predictor.answer(picture, "how many?", answers=answers)
    found = post(f"{address}/answer", content, question="how many?", answers=answers).json()
    assert found["text"] == expected.text and found["distribution"] == pytest.approx(
        expected.distribution, abs=1e-5
    )
    alone = post(f"{address}/answer", content, question="how many?", answers="two").json()
    assert alone["distribution"] == {"two": 1.0}
    found = post(f"{address}/ground", content, text="a red circle").json()
    assert found["box"] == pytest.approx(predictor.ground(picture, "a red circle").box)
    found = post(f"{address}/entails", content, text="a red circle", premise="two circles").json()
    expected = predictor.entails(picture, "a red circle", premise="two circles")
    assert found["distribution"] == pytest.approx(expected.distribution, abs=1e-5)
    for path in (picture, clip, sound):
        with open(path, "rb") as file:
            found = post(f"{address}/matches", file, text="a red circle").json()
        assert found["text"] == predictor.matches(path, "a red circle").text
    found, expected = post(f"{address}/encode", content).json(), predictor.encode(picture)
    assert found["pooled"] == pytest.approx(expected.pooled.tolist(), abs=1e-5)
    assert (found["tokens"], found["media_tokens"]) == (len(expected.states), expected.media_tokens)


def test_json_gives_what_multipart_gives(address, media):
    body = {"media": as_base64(media / "c.png"), "question": "how many?", "answers": ["yes", "two"]}
    as_json = httpx.post(f"{address}/answer", json=body)
    form = post(
        f"{address}/answer", (media / "c.png").read_bytes(), **{k: body[k] for k in body if k != "media"}
    )
    assert as_json.status_code == form.status_code == 200 and as_json.json() == form.json()


def test_health_says_what_runs(address, folder):
    found = httpx.get(f"{address}/health").json()
    assert found["status"] == "ok" and found["checkpoint"] == "model"
    assert str(folder) not in json.dumps(found)  # nothing about the machine's folders
    assert found["queue"] == {"taken": 0, "places": 3, "workers": 1}
    assert found["model"]["modalities"] == ["image", "video", "audio"] and found["limits"]["queue"] == 2


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def _wav(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(4000 * seconds), dtype=np.float32), 4000, format="WAV")
    return file.getvalue()


def _gif(frames: int) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("RGB", (16, 16), (8 * i, 0, 0)) for i in range(frames)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("task", "content", "fields", "status", "said"),
    [
        ("caption", b"no picture at all", {}, 422, "is not an image, video or sound"),
        ("caption", b"", {}, 422, "0 bytes"),
        ("caption", _png(40, 40)[:-40], {}, 422, "cannot be decoded"),
        ("caption", _png(200, 51), {}, 422, "the limit is 10000"),
        ("caption", _wav(2.1), {}, 422, "more than 2 seconds"),
        ("caption", _gif(21), {"modality": "video"}, 422, "more than 20 packets"),
        ("caption", _png(9, 9), {"modality": "audio"}, 422, "soundfile"),
        ("caption", _png(9, 9), {"modality": "smell"}, 422, "modality"),
        ("caption", _png(9, 9), {"colour": "red"}, 422, "colour"),
        ("caption", _png(9, 9), {"n_best": "11"}, 422, "less than or equal to 10"),
        ("answer", _png(9, 9), {}, 422, "question"),
        ("answer", _png(9, 9), {"question": "   "}, 422, "at least one word"),
        ("answer", _png(9, 9), {"question": "x" * 61}, 422, "at most 60 characters"),
        ("answer", _png(9, 9), {"question": ["a", "b"]}, 422, "question"),
        ("answer", _wav(0.5), {"question": "what?"}, 400, "audio"),
        ("ground", _gif(3), {"text": ""}, 422, "text"),
        ("ground", _wav(0.5), {"text": "a tone"}, 400, "audio"),
        ("caption", None, {"media": "aGk="}, 415, "multipart/form-data"),
    ],
)
def test_a_bad_request_is_told_why(address, task, content, fields, status, said):
    answer = post(f"{address}/{task}", content, **fields)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert said in answer.json()["error"] and "Traceback" not in answer.text
    assert post(f"{address}/caption", _png(9, 9)).status_code == 200


def test_broken_bodies(address):
    url = f"{address}/caption"
    for body, kind, status in (
        (b"{", "application/json", 422),
        (b'{"media": "aGk=", "n_best": "2"}', "application/json", 422),
        (b"[" * 10_000, "application/json", 422),
        (b'{"media": 3}', "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"rubbish", "multipart/form-data; boundary=x", 400),
        (b"rubbish", "multipart/form-data", 400),
        (b"media=aGk=", "application/x-www-form-urlencoded", 415),
        (b"hello", "text/plain", 415),
    ):
        answer = httpx.post(url, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status and answer.json()["error"], (body, kind, answer.text)
    assert httpx.get(url).status_code == 405 and httpx.post(f"{address}/draw").status_code == 404
    assert httpx.get(f"{address}/nowhere").json() == {"error": "Not Found"}


def test_a_model_without_the_modality(media, tmp_path):
    blind = load(save(tmp_path, media))
    with serving(blind, ServiceLimits()) as url:
        answer = post(f"{url}/caption", (media / "sound.wav").read_bytes())
        assert answer.status_code == 400 and "no audio network (it has: image)" in answer.json()["error"]


def test_paths_and_addresses_are_never_read(address, media, monkeypatch):
    picture = str(media / "a.png")
    for given in (picture, f"file://{picture}", "http://127.0.0.1/a.png", "../a.png"):
        answer = httpx.post(f"{address}/caption", json={"media": given})
        assert answer.status_code == 422 and "paths and addresses are not read" in answer.json()["error"]
    for field in ("path", "url", "file"):
        body = {"media": as_base64(media / "a.png"), field: picture}
        assert httpx.post(f"{address}/caption", json=body).status_code == 422
        content = (media / "a.png").read_bytes()
        assert post(f"{address}/caption", content, **{field: picture}).status_code == 422
    # a play list of files beside the server: FFmpeg would follow it
    monkeypatch.chdir(media)
    play_list = b"ffconcat version 1.0\nfile clip.mp4\n"
    with pytest.raises(MediaError):
        read_video(play_list, 2)
    for modality in (None, "video", "audio"):
        chosen = {} if modality is None else {"modality": modality}
        assert post(f"{address}/caption", play_list, **chosen).status_code == 422


def _answer(connection: socket.socket) -> bytes:
    """Read a response: its head and its JSON come one after the other."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    return answer


def test_a_large_request_is_refused_while_it_arrives(address):
    host, port = address.removeprefix("http://").split(":")
    head = "POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for framing in ("Content-Length: 9000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall((head + framing).encode())
            if "chunked" in framing:
                for _ in range(4):  # of a body that never ends
                    connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            answer = _answer(connection)
        assert b" 413 " in answer and b"the limit: send a smaller file" in answer
    answer = httpx.post(
        f"{address}/caption", content=b"a" * 3_000_000, headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 413


def test_a_slow_request_gives_its_place_back(address):
    host, port = address.removeprefix("http://").split(":")
    head = (
        b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head)
        assert b" 408 " in _answer(connection)
    assert httpx.get(f"{address}/health").json()["queue"]["taken"] == 0


def test_a_full_queue_says_when_to_come_back(address, media):
    """Three places are taken by requests that have not arrived in full."""
    host, port = address.removeprefix("http://").split(":")
    head = (
        b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    )
    waiting = [socket.create_connection((host, int(port)), timeout=30) for _ in range(3)]
    for connection in waiting:
        connection.sendall(head)
    while httpx.get(f"{address}/health").json()["queue"]["taken"] < 3:
        time.sleep(0.02)
    answer = post(f"{address}/caption", (media / "a.png").read_bytes())
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert "all 3 places are taken" in answer.json()["error"]
    for connection in waiting:
        connection.close()
    while httpx.get(f"{address}/health").json()["queue"]["taken"]:
        time.sleep(0.02)
    assert post(f"{address}/caption", (media / "a.png").read_bytes()).status_code == 200


def test_many_at_once_are_answered_or_sent_away(address, predictor, media):
    expected = {name: predictor.caption(media / f"{name}.png").text for name in "abcde"}
    statuses: list[int] = []

    def ask(name: str) -> None:
        answer = post(f"{address}/caption", (media / f"{name}.png").read_bytes())
        assert answer.status_code == 503 or answer.json()["text"] == expected[name]
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcdeabcde"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 10 and set(statuses) <= {200, 503} and 200 in statuses


def test_limits_are_checked():
    with pytest.raises(ConfigError, match="workers is 0: at least 1"):
        ServiceLimits(workers=0)
    assert ServiceLimits(queue=0).queue == 0


def test_the_program_serves_and_stops(folder, media):
    words = ["serve", str(folder), "--port", "0", "--device", "cpu", "--image-pixels", "3000", "--queue", "1"]
    process = subprocess.Popen(
        [*forks().program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http://127.0.0.1:"), line + process.stdout.read()
        address = line.split()[1]
        taken = subprocess.run(
            [*forks().program, "serve", "x", "--port", address.rpartition(":")[2]],
            capture_output=True,
            text=True,
        )
        assert taken.returncode == 2 and "give another --port" in taken.stderr
        assert post(f"{address}/caption", (media / "a.png").read_bytes()).status_code == 200  # 60 x 40
        assert post(f"{address}/caption", (media / "e.png").read_bytes()).status_code == 422  # 100 x 60
        assert httpx.get(f"{address}/health").json()["queue"]["places"] == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0 and process.stdout.read() == ""
    finally:
        process.kill()
