"""The task text-to-image: rows, generation of whole pictures, choice by CLIP, files with safe names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.imagegen_fixtures import CLIP, CODES, clip_files, vqgan_file
from unival.batching.batch import collate
from unival.errors import CheckpointError, ConfigError, DataError
from unival.imagegen.files import safe_name
from unival.imagegen.grid import read_codes
from unival.media import MediaLoader
from unival.modeling.build import build_model
from unival.predict.inference import Inference
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary

VOCABULARY = Vocabulary.train(["a red circle on white", "what is the complete image?"], 270, CODES, 10)
OPTIONS = SpecOptions(code_image_size=32, max_src_length=6)
CODES_TEXT = " ".join(str(k % CODES) for k in range(16))
SPEC = get_spec("image_gen")


def table(folder: Path, lines: list[str], selected_cols: str | None = None):
    path = folder / "rows.tsv"
    path.write_text("".join(line + "\n" for line in lines))
    return open_table(path, SPEC.fields, SPEC.layout_name, selected_cols)


def examples(rows, options=OPTIONS, training=False):
    return [SPEC.examples(row, MediaLoader(), options, VOCABULARY, None, training)[0] for row in rows]


def small_model():
    torch.manual_seed(0)
    model = build_model(
        "unival_tiny", len(VOCABULARY), encoder_embed_dim=32, decoder_embed_dim=32, encoder_ffn_embed_dim=32,
        decoder_ffn_embed_dim=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, image_encoder_name="none", code_image_size=32, image_bucket_size=4,
    )  # fmt: skip
    torch.nn.init.normal_(model.encoder.embed_tokens.weight, std=0.3)
    return model.eval()


def test_released_columns_become_prompt_and_codes(tmp_path):
    text = "a red circle on white, in the rain"
    example = examples(table(tmp_path, [f"17\t{CODES_TEXT}\t{text}"]), training=True)[0]
    assert example.id == "17" and example.code_target and example.modality is None
    source = " what is the complete image? caption: a red circle on white, in"
    assert VOCABULARY.decode(example.source.tolist()) == source
    ids = [VOCABULARY.code_offset + int(code) for code in CODES_TEXT.split()]
    assert example.target.tolist() == [*ids, VOCABULARY.eos]
    assert example.prev_output.tolist() == [VOCABULARY.bos, *ids]
    batch = collate([example])
    assert batch["net_input"]["code_masks"].tolist() == [True] and "patch_images" not in batch["net_input"]
    assert SPEC.decode(example.target, example, VOCABULARY)["codes"] == CODES_TEXT


def test_a_picture_of_1024_codes_is_not_cut():
    released = SpecOptions(code_image_size=256)
    settings = SPEC.decoding(released)
    assert (settings["min_len"], settings["max_len_b"], settings["sampling_topk"]) == (1024, 1024, 256)
    row = {"id": "1", "text": "x", "codes": " ".join(["3"] * 1024)}
    example = SPEC.examples(row, MediaLoader(), released, VOCABULARY, training=True)[0]
    assert len(example.target) == 1025


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES_TEXT + " 3", "expected 16 image codes (code_image_size 32), got 17"),
        ("", "expected 16 image codes"),
        (CODES_TEXT[:-2] + "99", "code 99 is not among the vocabulary's 32 (0 to 31)"),
        (CODES_TEXT[:-2] + "-1", "'-1' is no code"),
        (CODES_TEXT[:-2] + "1.5", "'1.5' is no code"),
    ],
)
def test_bad_codes_name_line_and_column(tmp_path, codes, message):
    rows = table(tmp_path, [f"1\t{CODES_TEXT}\tgood", f"2\t{codes}\tbad"])
    with pytest.raises(DataError) as caught:
        examples(rows, training=True)
    said = str(caught.value)
    assert message in said and "line 2" in said and "column 'codes'" in said


def test_rows_without_codes_can_be_drawn_but_not_learnt(tmp_path):
    rows = table(tmp_path, ["1\ta red circle"], "0,1")
    assert examples(rows)[0].reference == {"text": "a red circle"}
    with pytest.raises(DataError, match="codes"):
        examples(rows, training=True)
    empty = table(tmp_path, [f"1\t{CODES_TEXT}\t "])
    with pytest.raises(DataError, match="column 'text'"):
        examples(empty)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code_image_size": 30}, "multiple of 8"),
        ({"sampling_times": 0}, "sampling_times must be at least 1"),
        ({"eval_clip_method": "it_sim"}, "Did you mean 'ti_sim'"),
        ({"clip_model_path": "clip.pt"}, "vqgan_model_path, which makes them, is missing"),
        ({"vqgan_model_path": "v.pt", "fid_statistics": "gt.npz"}, "needs inception_model_path"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SpecOptions(**options)


def test_generation_gives_whole_pictures_of_codes_alone_and_each_row_its_own(tmp_path):
    lines = [f"{k}\t{CODES_TEXT}\t{text}" for k, text in enumerate(("a red circle", "white", "on a circle"))]
    parts = examples(table(tmp_path, lines))
    model = small_model()
    with torch.no_grad():  # words and specials would be far more probable than codes
        model.decoder.output_projection.weight[: VOCABULARY.code_offset] *= 30
    inference = Inference(SPEC, OPTIONS, VOCABULARY, {"beam": 3})
    found = inference(model, collate(parts), n_best=3)
    for prediction in found:
        outputs = [read_codes(output["codes"]) for output, _ in prediction.n_best]
        assert len(outputs) == 3 and all(len(codes) == 16 and max(codes) < CODES for codes in outputs)
        assert prediction.tokens[-1] == VOCABULARY.eos and len(prediction.tokens) == 17
    assert len({prediction.output["codes"] for prediction in found}) == 3
    for example, prediction in zip(parts, found, strict=True):
        assert inference(model, collate([example]))[0].output == prediction.output
    rounds = Inference(SPEC, replace(OPTIONS, sampling_times=2), VOCABULARY, {"beam": 3})
    six = rounds(model, collate(parts[:1]), n_best=9)[0].n_best
    assert len(six) == 6 and len({output["codes"] for output, _ in six}) > 3
    assert {output["codes"] for output, _ in found[0].n_best} < {output["codes"] for output, _ in six}
    opened = Inference(
        SPEC, replace(OPTIONS, vqgan_model_path=str(vqgan_file(tmp_path))), VOCABULARY, {}, "open"
    )
    with pytest.raises(ConfigError, match="no 'open' mode"):
        opened(model, collate(parts[:1]))


def judged(folder: Path, **more) -> SpecOptions:
    pytest.importorskip("open_clip")
    weights, config = clip_files(folder)
    paths = {"vqgan_model_path": str(vqgan_file(folder)), "clip_model_path": str(weights)}
    return replace(OPTIONS, **paths, clip_architecture=str(config), **more)


def test_the_most_similar_picture_wins_and_is_kept(tmp_path):
    from unival.imagegen.scorer import ImageScorer

    ids = ["../../etc/passwd", "ein Bild: größer/als *?", "a" * 300]
    lines = [f"{name}\t{CODES_TEXT}\ta red circle" for name in ids]
    options = judged(tmp_path, gen_images_path=str(tmp_path / "drawn" / "x"))
    inference = Inference(SPEC, options, VOCABULARY, {"beam": 4})
    parts = examples(table(tmp_path, lines), options)
    found = inference(small_model(), collate(parts), n_best=4)
    scorer = ImageScorer.of(options)
    for prediction, name in zip(found, ids, strict=True):
        outputs = [output for output, _ in prediction.n_best]
        pictures = scorer.render([read_codes(output["codes"]) for output in outputs])
        similarity = scorer.to_text(pictures, ["a red circle"] * 4)
        assert [output["similarity"] for output in outputs] == pytest.approx(similarity, abs=1e-6)
        assert prediction.score == pytest.approx(max(similarity)) and similarity.argmax() == 0
        assert SPEC.decode(prediction.tokens, None, VOCABULARY)["codes"] == prediction.output["codes"]
        kept = Image.open(prediction.output["file"])
        assert np.array_equal(np.asarray(kept), np.asarray(pictures[0]))
        every = sorted((tmp_path / "drawn/x/all_results").glob(f"{safe_name(name)}_*.png"))
        assert len(every) == 4
    written = list(tmp_path.rglob("*.png"))
    assert len(written) == 3 * 5 and all(path.is_relative_to(tmp_path / "drawn/x") for path in written)
    assert all(len(path.name) < 80 and path.name.isascii() for path in written)

    outputs, references = [p.output for p in found], [p.reference for p in found]
    scores = SPEC.score(outputs, references, options, ids)
    assert scores == {"score": pytest.approx(np.mean([p.score for p in found]))}
    metrics, info = SPEC.whole_set(outputs, references, options)
    assert set(metrics) == {"r_precision"} and info["clip_weights"] == "clip.pt"
    assert len(info["clip_sha256"]) == len(info["vqgan_sha256"]) == 64
    rows = [{"id": "1", "text": "red", "codes": CODES_TEXT}]
    text = [{"id": "2", "text": "a red circle"}]
    unrelated = scorer.to_text(scorer.render([read_codes(CODES_TEXT)]), ["a red circle"])
    assert SPEC.baseline(rows, text, options)["score"] == pytest.approx(unrelated[0], abs=1e-6)


def test_similarity_to_the_real_picture(tmp_path):
    options = judged(tmp_path, eval_clip_method="ii_sim")
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "real.png")
    own = table(tmp_path, [f"1\t{tmp_path}/real.png\ta circle\t{CODES_TEXT}"], "0,1,2,3")
    coded = [{"id": "1", "text": "a circle", "codes": CODES_TEXT}]
    real, drawn = examples(own, options)[0], examples(coded, options)[0]
    assert real.code_image.size == (40, 30) and drawn.code_image.size == (32, 32)
    inference = Inference(SPEC, options, VOCABULARY, {"beam": 2})
    values = [inference(small_model(), collate([example]))[0].score for example in (real, drawn)]
    assert values[0] != values[1] and all(-1 <= value <= 1 for value in values)
    with pytest.raises(DataError, match="needs an image or its codes"):
        examples([type(own[0])({"id": "1", "text": "a"}, "rows.tsv", 1)], options)


def test_files_that_do_not_fit_are_refused_before_anything_is_drawn(tmp_path):
    options = judged(tmp_path)
    other = Vocabulary.train(["a"], 256, 16, 10)
    with pytest.raises(ConfigError, match="has 32 codes, the vocabulary 16"):
        Inference(SPEC, options, other)
    wider = tmp_path / "wider-test-clip.json"
    wider.write_text(json.dumps({**CLIP, "embed_dim": 24}))
    with pytest.raises(CheckpointError, match="do not fit architecture"):
        Inference(SPEC, replace(options, clip_architecture=str(wider)), VOCABULARY)
    with pytest.raises(ConfigError, match="Did you mean"):
        Inference(SPEC, replace(options, clip_architecture="ViT-B-33"), VOCABULARY)
    hosted = tmp_path / "hosted.json"
    hosted.write_text(
        json.dumps({"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {"hf_tokenizer_name": "x/y"}})
    )
    with pytest.raises(ConfigError, match="would download the tokenizer"):
        Inference(SPEC, replace(options, clip_architecture=str(hosted)), VOCABULARY)


def test_different_ids_have_different_names():
    names = [safe_name(text) for text in ("a/b", "a_b", "a b", "A/B", "", "..", "con", "ä")]
    assert len({name.lower() for name in names}) == len(names)
    assert all(not name.startswith(("-", ".")) and "/" not in name for name in names)


def test_a_clip_of_ones_own_judges_pictures(tmp_path, capsys):
    pytest.importorskip("open_clip")
    from unival.cli import main
    from unival.metrics.images import ClipScorer

    (tmp_path / "pictures").mkdir()
    for name, colour in (("red", "red"), ("blue", "blue"), ("green", "green")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "pictures" / f"{name}.png")
    sizes = ["--width=32", "--layers=1", "--image-size=16", "--context-length=8", "--updates=3"]
    command = ["data", "clip", str(tmp_path / "pictures"), f"--out={tmp_path / 'own-test-clip.pt'}", *sizes]
    assert main([*command, "--batch-size=3"]) == 0
    said = capsys.readouterr().out
    assert "update 3: loss" in said and "chance 33.3%" in said
    scorer = ClipScorer(tmp_path / "own-test-clip.pt", str(tmp_path / "own-test-clip.json"))
    values = scorer.similarity([Image.new("RGB", (9, 30), "red")] * 2, ["red", "blue"])
    assert np.isfinite(values).all() and values[0] != values[1]
    assert main([*command, "--batch-size=4"]) == 2
    assert "3 pairs are fewer than batch_size 4" in capsys.readouterr().err
    assert main([*command, "--width=40"]) == 2
    assert "width 40 must be a multiple of 32" in capsys.readouterr().err


def test_clip_weights_in_a_torchscript_archive(tmp_path):
    """OpenAI's files are such archives, with three numbers that are no weights."""
    from unival.metrics.images import _clip_state

    module = torch.nn.Linear(2, 3)
    module.register_buffer("input_resolution", torch.tensor(224))
    torch.jit.script(module).save(str(tmp_path / "clip.pt"))
    state = _clip_state(tmp_path / "clip.pt")
    assert state.keys() == {"weight", "bias"} and torch.equal(state["weight"], module.weight)
