"""The Python interface: inputs, lists, results, errors, threads."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.released_files import small_model
from unival.checkpoint import save_folder
from unival.errors import CheckpointError, ConfigError, DataError
from unival.media import MediaError, read_audio, read_image, read_video
from unival.predict.predictor import load
from unival.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
PICTURES = [f"{name}.png" for name in "abcde"]


def test_every_form_of_an_image_gives_the_same(predictor, media):
    path = media / "a.png"
    picture = Image.open(path)
    pixels = np.asarray(picture)
    expected = predictor.caption(str(path))
    assert expected.text and expected.modality == "image" and str(expected) == expected.text
    with open(path, "rb") as file:
        forms = [
            path,
            path.read_bytes(),
            file,
            io.BytesIO(path.read_bytes()),
            picture,
            pixels,
            (pixels / 255).astype(np.float32),
            torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        ]
        for form in forms:
            found = predictor.caption(form)
            assert (found.text, found.log_prob) == (
                expected.text,
                pytest.approx(expected.log_prob, abs=1e-4),
            ), form


def test_clips_and_sounds(predictor, media):
    clip, sound = str(media / "clip.mp4"), str(media / "sound.wav")
    seen, heard = predictor.caption(clip), predictor.caption(sound)
    assert (seen.modality, heard.modality) == ("video", "audio")
    frames = read_video(clip, 2)
    wave = read_audio(sound, 16000)
    for form, expected in (
        (Path(clip).read_bytes(), seen),
        (frames, seen),
        (torch.from_numpy(frames), seen),
        (Path(sound).read_bytes(), heard),
        (wave, heard),
        ((wave, 16000), heard),
        (torch.from_numpy(np.stack([wave, wave])), heard),
    ):
        asked = "audio" if expected is heard else None
        assert predictor.caption(form, modality=asked).text == expected.text
    slow = wave[::2].copy()
    assert predictor.caption((slow, 8000)).modality == "audio"
    assert "2 frames" in predictor.info["video"] and "0.5 s at 16000 Hz, centre" in predictor.info["audio"]


def test_a_list_keeps_its_order_and_its_results(predictor, media):
    given = [media / name for name in PICTURES] + [media / "clip.mp4", media / "sound.wav", media / "a.png"]
    alone = [predictor.caption(one) for one in given]
    assert len({one.text for one in alone[:5]}) > 1  # a model that says one thing would show nothing
    together = predictor.caption(given)
    small = load(predictor.name, batch_size=3).caption(given)
    for results in (together, small):
        assert [r.text for r in results] == [r.text for r in alone]
        assert [r.modality for r in results] == [r.modality for r in alone]
        assert [r.log_prob for r in results] == pytest.approx([r.log_prob for r in alone], abs=1e-3)
    assert predictor.caption([]) == []


def test_questions(predictor, media):
    path = media / "b.png"
    free = predictor.answer(path, "how many?", n_best=3, max_len_b=5)
    assert (
        len(free.n_best) == 3 and free.n_best[0] == (free.text, free.log_prob) and free.distribution is None
    )
    assert [score for _, score in free.n_best] == sorted((s for _, s in free.n_best), reverse=True)
    answers = ["yes", "no", "two", "a red circle"]
    ranked = predictor.answer(path, "how many?", answers=answers)
    assert ranked.text in answers and set(ranked.distribution) == set(answers)
    assert math.isclose(sum(ranked.distribution.values()), 1, abs_tol=1e-6)
    assert ranked.text == max(ranked.distribution, key=ranked.distribution.get)
    assert ranked.probability == pytest.approx(math.exp(ranked.log_prob), abs=1e-4)
    questions = ["how many red?", "what?", "is it on a blue square?"]
    several = predictor.answer(path, questions, answers=answers)
    for question, found in zip(questions, several, strict=True):
        assert found.distribution == pytest.approx(
            predictor.answer(path, question, answers).distribution, abs=1e-4
        )
    paired = predictor.answer([path, media / "c.png"], ["how many?", "what?"], max_len_b=5)
    assert paired[0].text == free.text
    assert predictor.answer(media / "clip.mp4", "what?", max_len_b=5).modality == "video"


def test_judgements(predictor, media):
    path = media / "c.png"
    verdict = predictor.entails(path, "a red circle")
    assert set(verdict.distribution) == {"yes", "no", "maybe"} and verdict.text in verdict.distribution
    premise = predictor.entails(path, "a red circle", premise="two circles")
    assert premise.distribution != verdict.distribution
    for one in ("c.png", "clip.mp4", "sound.wav"):
        match = predictor.matches(media / one, "a red circle on a blue square")
        assert math.isclose(sum(match.distribution.values()), 1, abs_tol=1e-6) and match.text in ("yes", "no")


def test_boxes_are_in_pixels_of_the_input(predictor, media):
    found = predictor.ground([media / name for name in PICTURES], "the red circle")
    for name, result in zip(PICTURES, found, strict=True):
        assert result.text is None and len(result.box) == 4 and str(result).count(",") == 3
        width, height = read_image(media / name).size
        # the bins span max_image_size = 64 network pixels, the picture 32 of them
        assert all(0 <= c <= 2 * side for c, side in zip(result.box, (width, height) * 2, strict=True))
        drawn = result.draw("magenta", width=1)
        assert drawn.size == (width, height)
        x0, y0, x1, y1 = (round(c) for c in result.box)
        if x0 < x1 < width and y0 < y1 < height:
            assert drawn.getpixel((x0, y0)) == (255, 0, 255)
    assert np.array_equal(np.asarray(Image.open(media / "a.png")), np.asarray(read_image(media / "a.png")))
    with pytest.raises(ConfigError, match="only boxes"):
        predictor.caption(media / "a.png").draw()


def test_a_drawn_box_survives_the_round_trip(predictor, media):
    """Bins of a box, decoded as a prediction, give the box to within one bin."""
    from unival.batching.batch import Example
    from unival.specs import get_spec
    from unival.vocabulary.boxes import quantise, scale

    vocabulary, options = predictor.loaded.vocabulary, predictor.options
    width, height = read_image(media / "e.png").size
    resize = (32 / width, 32 / height)
    box = (10.0, 5.0, 70.0, 40.0)
    bins = quantise(scale(box, resize), 64, vocabulary.num_bins)
    example = Example("x", *(torch.zeros(0, dtype=torch.int64),) * 3, size=(width, height), resize=resize)
    tokens = [vocabulary.bin_id(b) for b in bins]
    back = get_spec("grounding").decode(tokens, example, vocabulary, options)
    for one, two, side in zip(back, box, (width, height) * 2, strict=True):
        assert abs(one - two) <= 64 / (vocabulary.num_bins - 1) * side / 32 / 2 + 1e-4


def test_encoder_states(predictor, media):
    path = media / "a.png"
    own = predictor.encode(path)
    assert own.states.shape[1] == 32 and own.media_tokens == 1 and own.pooled.shape == (32,)
    asked = predictor.encode(path, text="how many?")
    assert asked.states.shape[0] != own.states.shape[0]
    text = predictor.encode(text="how many?")
    assert text.modality is None and text.media_tokens == 0
    given = [media / "clip.mp4", path, media / "sound.wav"]
    several = predictor.encode(given, text=["a", "how many?", "what does the image describe?"])
    assert torch.allclose(several[1].states, asked.states, atol=1e-4)
    assert [e.modality for e in several] == ["video", "image", "audio"]
    with torch.no_grad():
        source = torch.tensor([[0, *predictor.loaded.vocabulary.encode(" how many?"), 2]])
        expected = predictor.model.encoder(source)["encoder_out"][0][:, 0]
    assert torch.allclose(text.states, expected, atol=1e-5)


def test_threads_get_their_own_results(predictor, media):
    jobs = [
        lambda name=name: predictor.caption(media / name) for name in (*PICTURES, "clip.mp4", "sound.wav")
    ]
    jobs += [
        lambda name=name: predictor.answer(media / name, "how many?", ["yes", "no"]) for name in PICTURES
    ]
    jobs += [lambda name=name: predictor.ground(media / name, "a circle") for name in PICTURES]
    expected = [job() for job in jobs]
    fresh = load(predictor.name)
    order = [k for _ in range(3) for k in np.random.default_rng(1).permutation(len(jobs))]

    def run(k):
        cell = jobs[k].__defaults__[0]
        name = media / cell
        if k < 7:
            return fresh.caption(name)
        return fresh.answer(name, "how many?", ["yes", "no"]) if k < 12 else fresh.ground(name, "a circle")

    with ThreadPoolExecutor(6) as pool:
        for k, found in zip(order, pool.map(run, order), strict=True):
            assert found.output == expected[k].output
            assert found.log_prob == pytest.approx(expected[k].log_prob, abs=1e-4)


def test_errors_name_what_is_wrong(predictor, media, vocabulary, tmp_path):
    good, bad = media / "a.png", tmp_path / "bad.png"
    bad.write_bytes((media / "a.png").read_bytes()[:60])
    with pytest.raises(MediaError, match=r"bad\.png") as error:
        predictor.caption(bad)
    assert "item" not in str(error.value)
    with pytest.raises(MediaError, match=r"item 2: .*bad\.png"):
        predictor.caption([good, good, bad])
    with pytest.raises(MediaError, match=r"item 1: .*absent.*no such file"):
        predictor.caption([good, media / "absent"])
    with pytest.raises(MediaError, match=r"item 0: .*not NoneType"):
        predictor.caption([None])
    with pytest.raises(MediaError, match="None: expected a path"):
        predictor.caption(None)
    with pytest.raises(MediaError, match="pixels are uint8"):
        predictor.caption(np.full((8, 8, 3), 300))
    with pytest.raises(MediaError, match="text mode"):
        predictor.caption(io.StringIO("x"))
    with pytest.raises(ConfigError, match=r"item 1: .*grounding.*no modality 'video'"):
        predictor.ground([good, media / "clip.mp4"], "a circle")
    with pytest.raises(DataError, match=r"item 1: question"):
        predictor.answer(good, ["what?", "  "])
    with pytest.raises(ConfigError, match="2 and 3"):
        predictor.answer([good, good], ["a?", "b?", "c?"])
    with pytest.raises(ConfigError, match=r"modality 'vidoe'.*video"):
        predictor.caption(good, modality="vidoe")
    with pytest.raises(ConfigError, match=r"beem.*beam"):
        predictor.caption(good, beem=3)
    with pytest.raises(ConfigError, match="n_best"):
        predictor.caption(good, n_best=0)
    with pytest.raises(ConfigError, match="media, a text"):
        predictor.encode()
    images = save_folder(tmp_path / "images", small_model(len(vocabulary)), vocabulary)
    only = load(images)
    with pytest.raises(ConfigError, match=r"item 0: .*clip\.mp4: the checkpoint has no video network"):
        only.caption([media / "clip.mp4", good])
    assert only.modalities == ("image",)


def test_what_load_refuses_and_reports(folder):
    for given, expected in (
        ({"precision": "float8"}, "precision"),
        ({"device": "cuda:99"}, "GPUs are visible"),
        ({"device": "tpu"}, "not known"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_frame": 3}, "num_frames"),
        ({"prompts": {"caption.image": "what {x}?"}}, "placeholder"),
    ):
        with pytest.raises(ConfigError, match=expected):
            load(folder, **given)
    with pytest.raises(ConfigError, match="neither a file"):
        load("unival_captoin_stage_1")
    for name in ("unival_caption_stage_1", "ofa-tiny"):
        with pytest.raises(CheckpointError, match=f"unival download {name}'"):
            load(name)
    with pytest.raises(ConfigError, match="is not a model to load"):
        load("gt_stat")
    with pytest.raises(CheckpointError, match="raw weights, not ema"):
        load(folder, weights="ema")
    info = load(folder, device="cpu", num_frames=3).info
    assert info["device"] == "cpu" and info["precision"] == "float32" and "3 frames" in info["video"]
    assert info["parameters"] > 1e6 and info["modalities"] == ("image", "video", "audio")


def test_options_and_precision_act(folder, predictor, media):
    path = media / "d.png"
    half = load(folder, precision="bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert half.caption([path, media / "sound.wav"])[0].text
    other = load(folder, prompts={"caption.image": " how many?"})
    assert not torch.equal(other.encode(path).states, predictor.encode(path).states)
    short = predictor.caption(path, max_len_b=2, beam=1)
    assert len(short.text.split()) <= 2
    assert load(folder, patch_image_size=64).encode(path).media_tokens == 4


def test_drawing(media, tmp_path):
    """Codes of the model's own grid, turned into pixels by a VQGAN; a clear error without one."""
    from unival.imagegen.vqgan import Vqgan, VqganConfig
    from unival.imagegen.weights import save_vqgan

    torch.manual_seed(0)
    sizes = {"ch": 4, "ch_mult": (1, 1, 1, 1), "num_res_blocks": 1, "attn_resolutions": (), "resolution": 32}
    network = Vqgan(VqganConfig(**sizes, z_channels=4, embed_dim=4, n_embed=16, groups=2))
    save_vqgan(network, tmp_path / "vqgan.pt")
    words = Vocabulary.load(media / "vocabulary")
    checkpoint = save_folder(tmp_path / "model", small_model(len(words), code_image_size=32), words)
    model = load(checkpoint)
    with pytest.raises(ConfigError, match="vqgan_model_path is missing"):
        model.draw("a red circle")
    drawing = model.draw("a red circle", n_best=2, vqgan=tmp_path / "vqgan.pt")
    assert [image.size for image in drawing.images] == [(32, 32)] * 2 and drawing.similarity is None
    assert len(drawing.codes[0]) == 16 and set(drawing.codes[0]) <= set(range(16))
    again = load(checkpoint, vqgan_model_path=str(tmp_path / "vqgan.pt")).draw(
        ["a red circle", "no"], n_best=2
    )
    assert again[0].codes == drawing.codes and again[1].codes != drawing.codes


def test_without_the_engine(folder, media):
    """Three lines caption an image, a clip and a sound where fairseq cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('fairseq', 'fairseq_cli', 'omegaconf', 'hydra', 'transformers'): sys.modules[name] = None\n"
        "folder, media = sys.argv[1:]\n"
        "import unival\n"
        "model = unival.load(folder)\n"
        "print(*model.caption([f'{media}/a.png', f'{media}/clip.mp4', f'{media}/sound.wav']), sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(media)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.strip().splitlines()) == 3


ODD = {
    "answers, a text": (lambda p, a: p.answer(a, "q?", answers="red"), "answers is 'red': expected a list"),
    "answers, a number": (lambda p, a: p.answer(a, "q?", answers=5), "answers is 5"),
    "answers, numbers": (lambda p, a: p.answer(a, "q?", answers=[5]), "answers holds 5"),
    "answers, none": (lambda p, a: p.answer(a, "q?", answers=[]), "empty list"),
    "answers, blank": (lambda p, a: p.answer(a, "q?", answers=["a", " "]), "answers holds ' '"),
    "beam, a text": (lambda p, a: p.caption(a, beam="5"), "beam '5': expected a whole number"),
    "beam, a fraction": (lambda p, a: p.caption(a, beam=2.5), "beam 2.5: expected a whole number"),
    "beam, nothing": (lambda p, a: p.caption(a, beam=None), "beam"),
    "switch, a text": (
        lambda p, a: p.caption(a, sampling="false"),
        "sampling 'false': expected true or false",
    ),
    "number, not finite": (lambda p, a: p.caption(a, lenpen=math.inf), "lenpen inf"),
    "n_best, a fraction": (lambda p, a: p.caption(a, n_best=1.5), "n_best is 1.5"),
    "n_best, a text": (lambda p, a: p.answer(a, "q?", ["a"], n_best="2"), "n_best is '2'"),
    "n_best above an explicit beam": (
        lambda p, a: p.caption(a, n_best=3, beam=2),
        "n_best 3 is above the 2 outputs of a search with beam 2",
    ),
    "n_best, a million": (lambda p, a: p.caption(a, n_best=10**6), "at most 1000"),
    "mode, a list": (lambda p, a: p.answer(a, "q?", mode=["rank"]), "mode is"),
    "mode, a number": (lambda p, a: p.answer(a, "q?", mode=5), "mode is 5"),
    "modality, a number": (lambda p, a: p.caption(a, modality=5), "modality"),
    "size, a text": (lambda p, a: load(p.name, patch_image_size="x"), "patch_image_size 'x'"),
    "size, too large": (lambda p, a: load(p.name, patch_image_size=100_000), "at most 4096"),
    "frames, too many": (lambda p, a: load(p.name, num_frames=10**7), "num_frames"),
    "sound, too long": (lambda p, a: load(p.name, max_audio_len=10**12), "max_audio_len"),
    "prompts, a number": (lambda p, a: load(p.name, prompts=5), "prompts 5"),
    "prompt, a number": (lambda p, a: load(p.name, prompts={"caption.image": 5}), "'caption.image' is 5"),
    "prompt, no name": (lambda p, a: load(p.name, prompts={5: "a"}), "unknown prompt '5'"),
    "own answers, a text": (lambda p, a: load(p.name, answers="red"), "answers is 'red'"),
    "precision, a number": (lambda p, a: load(p.name, precision=5), "precision '5'"),
    "batch, a text": (lambda p, a: load(p.name, batch_size="16"), "batch_size is '16'"),
    "batch, a switch": (lambda p, a: load(p.name, batch_size=True), "batch_size is True"),
    "checkpoint, a number": (lambda p, a: load(5), "checkpoint is 5"),
    "checkpoint, nothing": (lambda p, a: load(None), "checkpoint is None"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_calls_are_configuration_errors(name, predictor, media):
    """A text as a list of answers was read letter by letter, "false" switched sampling on, others were TypeErrors."""
    call, message = ODD[name]
    with pytest.raises(ConfigError) as error:
        call(predictor, media / "a.png")
    assert message in str(error.value) and "\n" not in str(error.value)
