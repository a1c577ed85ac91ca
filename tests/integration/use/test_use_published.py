"""Files of the structure that each family publishes, fetched by name: loaded, captioned, converted, exported, equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import unival
from tests.support.file_server import FileServer
from tests.support.ofa_folders import ofa_folder
from tests.support.released_files import SMALL, released, small_model
from unival.checkpoint import Header, load_checkpoint
from unival.checkpoint.convert import convert
from unival.cli import main
from unival.vocabulary import Vocabulary

BATCH = {
    "src_tokens": torch.tensor([[0, 9, 8, 2]]),
    "src_lengths": None,
    "prev_output_tokens": torch.tensor([[0, 5, 6]]),
    "patch_images": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**BATCH)[0]


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


@pytest.fixture(scope="module")
def words(media: Path) -> Vocabulary:
    texts = ["what does the image describe? a red circle on a blue square", "how many yes no maybe two"] * 3
    return Vocabulary.train(texts, 300)


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


@pytest.fixture(params=["half", "float with EMA", "OFA", "OFA folder", "ModelScope"])
def family(
    request: pytest.FixtureRequest, words: Vocabulary, tmp_path: Path
) -> tuple[str, Path, torch.Tensor, str]:
    """Name in the catalogue, the file or folder, its logits, and whose it is."""
    kind = request.param
    if kind in ("OFA", "OFA folder", "ModelScope"):
        model = small_model(len(words), image_encoder_name="resnet")
        expected = logits(model)
        if kind == "OFA":
            options = {**SMALL, "image_encoder_name": "resnet", "attn_scale_factor": 2.0}
            task = {"patch_image_size": 32}
            path = released(tmp_path / "o.pt", model.state_dict(), "ofa_base", "caption", options, task)
            return "ofa_caption_base", path, expected, "OFA"
        second = {"task": "image-captioning", "model": {"patch_image_size": 32}}
        configuration = second if kind == "ModelScope" else None
        return (
            "ofa-tiny",
            ofa_folder(tmp_path / "hf", model, words, 1, configuration=configuration),
            expected,
            "OFA",
        )
    networks = {"audio_encoder_name": "pann_cnn6"} if kind == "half" else {}
    raw, average = (small_model(len(words), seed, **networks) for seed in (0, 1))
    state = raw.state_dict()
    if kind.startswith("half"):
        with torch.no_grad():
            for key, value in state.items():
                if value.is_floating_point() and "stft" not in key:
                    value.copy_(value.half())
        state = halved(state)
    task = {"patch_image_size": 32, "eval_args": '{"beam": 2, "max_len_b": 6}'}
    ema = average.state_dict() if kind.endswith("EMA") else None
    path = released(tmp_path / "u.pt", state, "unival_base", "caption", {**SMALL, **networks}, task, ema)
    return "unival_s1", path, logits(average if ema else raw), "UnIVAL"


def test_download_load_caption_convert_export(family, words, server, media, tmp_path, monkeypatch, capsys):
    """The three lines of the README against a server on this machine, then every layout of the same weights."""
    name, source, expected, whose = family
    weights = tmp_path / "weights"
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(weights))
    words.save(weights / "bpe")
    (weights / "bpe" / "vocabulary.json").unlink()
    if source.is_dir():
        source.rename(weights / name)
    else:
        server.files = {"/file": source.read_bytes()}
        place = ["--out", str(weights / "ofa/caption_base_best.pt")] if name.startswith("ofa") else []
        assert main(["download", name, "--url", f"{server.url}/file?cut=90000&once=1", *place]) == (
            2 if name.startswith("ofa") else 0
        ), "the published file of OFA has another length and hash"
        if place:
            (weights / "ofa").mkdir(parents=True, exist_ok=True)
            source.rename(weights / "ofa/caption_base_best.pt")
    model = unival.load(name, device="cpu", patch_image_size=32)
    assert model.info["family"] == whose and len(model.loaded.vocabulary) == len(words)
    said = model.caption(media / "a.png", beam=2, max_len_b=6).text
    assert torch.allclose(logits(model.model), expected, atol=1e-6, rtol=0)
    for number, to in enumerate(("fairseq", "huggingface")):
        out, report = convert(name, tmp_path / f"c{number}", to)
        loaded = load_checkpoint(out)
        assert torch.allclose(logits(loaded.model), expected, atol=1e-6, rtol=0), to
        assert loaded.family == whose and report[0].startswith(f"family: {whose}")
        assert Header.read(out).fingerprint == words.fingerprint()
    again = unival.load(out, device="cpu", patch_image_size=32).caption(media / "a.png", beam=2, max_len_b=6)
    assert again.text == said
    if whose == "UnIVAL" and model.loaded.weights == "ema":
        assert main(["convert", name, str(tmp_path / "raw"), "--weights", "raw"]) == 0
        raw = small_model(len(words), 0)
        found = logits(load_checkpoint(tmp_path / "raw").model)
        assert torch.allclose(found, logits(raw), atol=1e-6, rtol=0)
        assert not torch.allclose(found, expected, atol=1e-3)
