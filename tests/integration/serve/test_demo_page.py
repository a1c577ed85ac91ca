"""The web page in a real browser, and what its server refuses without one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.forks import forks
from tests.support.needs import needs

pytestmark = needs("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 120  # seconds, for busy machines


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[str]:
    """Address of ``unival demo`` in a process of its own."""
    process = subprocess.Popen(
        [*forks().program, "demo", str(folder), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("showing http://127.0.0.1:"), line + process.stdout.read()
    yield line.split()[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


@pytest.fixture
def browser(page: str) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on PATH")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    driver.get(page)
    yield driver
    driver.quit()


def test_upload_click_and_read(browser, page, predictor, media, tmp_path):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(what: Any) -> Any:
        patient = WebDriverWait(browser, PATIENCE, ignored_exceptions=[StaleElementReferenceException])
        return patient.until(lambda _: what())

    def seen(selector: str) -> list[Any]:
        return [e for e in browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]

    def tab(title: str) -> None:
        wait(lambda: [e for e in seen("button[role=tab]") if e.text == title])[0].click()

    def click(name: str) -> None:
        browser.execute_script("arguments[0].click()", wait(lambda: seen(f"#{name}"))[0])

    def upload(modality: str, path: Path, shown: str) -> None:
        for cross in seen(f"#{modality}-upload button[aria-label=Clear]"):
            cross.click()
        file = f"#{modality}-upload input[type=file]"
        wait(lambda: browser.find_elements(By.CSS_SELECTOR, file))[0].send_keys(str(path))
        wait(lambda: browser.find_elements(By.CSS_SELECTOR, f"#{modality}-upload {shown}"))

    def answer(name: str) -> str:
        box = f"#{name}-answer textarea, #{name}-answer input"
        return wait(lambda: [e.get_attribute("value") for e in seen(box) if e.get_attribute("value")])[0]

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture at all")
    upload("image", broken, "img")
    click("image-caption-go")
    told = "broken.png: is not an image"
    wait(lambda: [e for e in seen(".toast-body") if told in e.text])

    upload("image", media / "b.png", "img")
    click("image-caption-go")
    assert answer("image-caption") == predictor.caption(media / "b.png").text

    tab("Find")
    wait(lambda: seen("#image-ground-text textarea"))[0].send_keys("a red circle")
    click("image-ground-go")
    assert answer("image-ground") == str(predictor.ground(media / "b.png", "a red circle"))
    assert seen("#image-ground-picture img")

    tab("Judge")
    wait(lambda: seen("#image-entails-text textarea"))[0].send_keys("a red circle")
    click("image-entails-go")
    verdict = predictor.entails(media / "b.png", "a red circle").text
    wait(lambda: [e for e in seen("#image-entails-answer .output-class") if e.text.strip() == verdict])

    tab("Sound")
    upload("audio", media / "sound.wav", "audio, #waveform")
    click("audio-caption-go")
    assert answer("audio-caption") == predictor.caption(media / "sound.wav").text

    requests = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
    assert len(urls) > 10 and all(url.startswith((page, "blob:", "data:")) for url in urls)


def test_no_path_and_no_address_from_a_request(page, media):
    """What the page's script sends can be forged: a file of the machine, an address."""
    config = httpx.get(f"{page}/config").json()
    button = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "image-caption-go")
    number = next(d["id"] for d in config["dependencies"] if [button, "click"] in map(list, d["targets"]))
    for session, path in enumerate((str(media / "a.png"), "/etc/hostname", "http://example.org/a.png")):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": number, "session_hash": f"s{session}"}
        httpx.post(f"{page}/gradio_api/queue/join", json=asked, timeout=PATIENCE).raise_for_status()
        stream = f"{page}/gradio_api/queue/data?session_hash=s{session}"
        with httpx.stream("GET", stream, timeout=PATIENCE) as events:
            lines = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
        done = next(line for line in lines if line["msg"] == "process_completed")
        assert done["success"] is False, done
    for path in (media / "a.png", "/etc/hostname"):
        assert httpx.get(f"{page}/gradio_api/file={path}").status_code == 403
    assert httpx.get(page).status_code == 200
