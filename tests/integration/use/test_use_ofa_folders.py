"""OFA as Hugging Face and ModelScope publish it, beside the same weights in fairseq's layout."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.support.ofa_folders import MODELSCOPE, bart_vocabulary, ofa_config, ofa_folder, ofa_state
from tests.support.released_files import SMALL, released, small_model
from unival.checkpoint import Header, load_checkpoint
from unival.checkpoint.convert import convert
from unival.checkpoint.huggingface import fairseq_key
from unival.checkpoint.lineage import lineage_through
from unival.cli import main
from unival.errors import CheckpointError
from unival.predict.predictor import load
from unival.vocabulary import Vocabulary
from unival.vocabulary.bart import read_bart

ROOT = Path(__file__).resolve().parents[3]
BASE = json.loads((ROOT / "tests/parity/data/base_state_dict.json").read_text())
BPE = ROOT.parent / "shared" / "bpe"
OFA = {"image_encoder_name": "resnet", "resnet_type": "resnet50"}


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    """A small text vocabulary with as many codes and bins as the published one."""
    return Vocabulary.train(["what does the image describe? a red circle"] * 3, 270)


@pytest.fixture(scope="module")
def model(words: Vocabulary) -> torch.nn.Module:
    """Every norm has values of its own, so that none can stand in for another."""
    made = small_model(len(words), **OFA)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.dim() == 1 and "embed_images" not in name:
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.5)
    return made.eval()


@pytest.fixture(scope="module")
def file(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as OFA's own ``.pt``."""
    options = {**SMALL, **OFA, "attn_scale_factor": 2.0, "share_all_embeddings": True}
    path = tmp_path_factory.mktemp("fairseq") / "ofa.pt"
    return released(path, model.state_dict(), "ofa_tiny", "unify_task", options)


def logits(path: Path, vocabulary: Vocabulary | None = None) -> torch.Tensor:
    batch = {
        "src_tokens": torch.tensor([[0, 9, 8, 2]]),
        "src_lengths": None,
        "prev_output_tokens": torch.tensor([[0, 5, 6]]),
        "patch_images": torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    }
    with torch.no_grad():
        return load_checkpoint(path, vocabulary=vocabulary).model(**batch)[0]


def test_logits_are_those_of_fairseqs_layout(model, file, words, media, tmp_path):
    """One table or three, prefix or none, half precision; captioned, converted, exported; and the trap."""
    expected = logits(file, words)
    one, three = (ofa_folder(tmp_path / f"t{n}", model, words, copies=n) for n in (1, 3))
    assert (one / "pytorch_model.bin").stat().st_size < (three / "pytorch_model.bin").stat().st_size - 2e6
    prefixed = {f"model.{key}": value for key, value in ofa_state(model).items()}
    behind = ofa_folder(tmp_path / "prefix", model, words, state=prefixed)
    scope = ofa_folder(tmp_path / "scope", model, words, configuration={"task": "ocr"}, **MODELSCOPE)
    for folder in (one, three, behind, scope):
        assert torch.allclose(logits(folder), expected, atol=1e-6, rtol=0), folder.name
    halved = {key: v.half() if v.is_floating_point() else v for key, v in ofa_state(model).items()}
    half = ofa_folder(tmp_path / "half", model, words, state=halved)
    assert torch.allclose(logits(half), expected, atol=0.05 * float(expected.abs().max()))
    small = {"device": "cpu", "patch_image_size": 32}
    said = load(one, **small).caption(media / "a.png", beam=2, max_len_b=6).text
    for number, (to, source) in enumerate((("folder", one), ("fairseq", three), ("huggingface", scope))):
        out, report = convert(source, tmp_path / f"c{number}", to)
        assert torch.allclose(logits(out), expected, atol=1e-6, rtol=0), to
        assert "family: OFA" in report[0] and "own size" in report[0]
    assert load(out, **small).caption(media / "a.png", beam=2, max_len_b=6).text == said
    swapped = dict(ofa_state(model))
    for name in ("weight", "bias"):  # the norm before cross attention for the one behind it
        before, behind_it = (f"decoder.layers.0.cross_attn_{m}layer_norm.{name}" for m in ("", "mid_"))
        swapped[before], swapped[behind_it] = swapped[behind_it], swapped[before]
    wrong = logits(ofa_folder(tmp_path / "swapped", model, words, state=swapped))
    assert not torch.allclose(wrong, expected, atol=1e-3), "the test would not see exchanged norms"


def test_what_it_says(model, words, tmp_path):
    folder = ofa_folder(tmp_path / "m", model, words)
    header = Header.read(folder)
    assert (header.family, header.arch, header.task) == ("OFA", None, {})
    assert header.vocabulary().fingerprint() == header.fingerprint == read_bart(folder).fingerprint()
    assert len(lineage_through(folder)) == 1
    configuration = {
        "task": "image-captioning",
        "model": {"type": "ofa", "patch_image_size": 64, "prompt": " what is it?", "beam_search": {}},
    }
    configuration["model"]["imagenet_default_mean_and_std"] = True
    scope = ofa_folder(tmp_path / "s", model, words, configuration=configuration, **MODELSCOPE)
    header = Header.read(scope)
    assert header.task == {"name": "caption", "modality": "image"}
    assert header.prompts == {"caption.image": " what is it?"}
    options = load(scope, device="cpu").options
    assert options.patch_image_size == 64 and options.imagenet_default_mean_and_std
    published = {"tiny": 256, "medium": 256, "base": 384, "large": 480, "huge": 480}
    from unival.checkpoint.huggingface import IMAGE_SIZES
    from unival.modeling.config import ARCHS

    for name, pixels in published.items():
        assert IMAGE_SIZES[ARCHS[f"unival_{name}"]["encoder_embed_dim"]] == pixels


def test_published_base_loads_by_its_key_list(tmp_path):
    """All 965 names of the published base model, none left over and none absent; without its memory."""
    from unival.checkpoint.huggingface import fairseq_state, read_ofa
    from unival.checkpoint.identify import config_of
    from unival.modeling.build import build_from_config, build_model
    from unival.modeling.weights import load_into

    with torch.device("meta"):
        full = build_model("unival_base", image_encoder_name="resnet")
    state = {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in ofa_state(full).items()
    }
    assert len(state) == 965
    assert set(fairseq_state(state)) <= set(BASE["keys"])
    file = read_ofa(ofa_folder(tmp_path / "base", full, state=state))
    config = config_of(file, file.model)
    assert file.arch == "ofa_base" and file.args["patch_image_size"] == 384
    assert config.transformer.code_image_size == 128, "read off a grid of 1025 entries"
    with torch.device("meta"):
        report = load_into(build_from_config(config), file.model)
    assert not report.missing and not report.unexpected


def test_the_released_vocabulary_is_recognised(tmp_path):
    """vocab.json and merges.txt made of the released files are the released vocabulary, to the fingerprint."""
    if not BPE.is_dir():
        pytest.skip("the released BPE files are not here")
    vocabulary = Vocabulary.load(BPE)
    bart_vocabulary(vocabulary, tmp_path)
    composed = (tmp_path / "vocab.json").read_bytes()
    assert len(composed) == 898_822
    assert hashlib.sha256(composed).hexdigest().startswith("06b4d46c8e752d41"), "as published for bart.base"
    assert read_bart(tmp_path).fingerprint() == vocabulary.fingerprint()
    assert read_bart(tmp_path).encode(" what does the image describe?") == vocabulary.encode(
        " what does the image describe?"
    )
    assert read_bart(ROOT) is None


def test_evaluation_finetuning_and_the_folder_of_bpe_files(model, words, media, tmp_path, monkeypatch):
    folder = ofa_folder(tmp_path / "m", model)
    words.save(tmp_path / "w" / "bpe")
    (tmp_path / "w" / "bpe" / "vocabulary.json").unlink()
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(tmp_path / "w"))
    table = tmp_path / "t.tsv"
    table.write_text(f"id\timage\tcaption\n1\t{media / 'a.png'}\ta red circle\n")
    words_of_call = ["--task", "caption", "--patch-image-size", "32", "--max-image-size", "64"]
    words_of_call += ["--device", "cpu", "--out", str(tmp_path / "o"), "--eval-args", '{"max_len_b": 4}']
    assert main(["evaluate", str(folder), str(table), *words_of_call]) == 0
    result = json.loads((tmp_path / "o" / "result.json").read_text())
    assert result["n"] == 1 and len(result["checkpoint_sha256"]) == 64
    pytest.importorskip("fairseq")
    from unival.checkpoint.load import read_weights
    from unival.modeling.weights import load_into
    from unival.tasks.base import _vocabulary
    from unival.tasks.options import TaskOptions

    start = Namespace(finetune_from_model=str(folder))
    assert _vocabulary(start, TaskOptions()).fingerprint() == words.fingerprint()
    fresh = small_model(len(words), seed=3, **OFA)
    load_into(fresh, read_weights(folder), extend=True)
    theirs = model.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in fresh.state_dict().items())


def test_refusals_name_the_field(model, words, tmp_path):
    def refused(name: str, match: str, **given: object) -> None:
        folder = ofa_folder(tmp_path / name, model, given.pop("vocabulary", words), **given)
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(folder)

    refused("vit", r"use_ofasys is True.*vit_type is 'vit_large'", use_ofasys=True, vit_type="vit_large")
    refused("shared", "share_attn_bias is True", share_attn_bias=True)
    refused("wide", r"d_model is 64, the weights show 32", d_model=64)
    refused("deep", r"decoder_layers is 5, the weights show 2", decoder_layers=5)
    state = ofa_state(model)
    state["decoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"] + 1
    refused("tables", r"embed_tokens\.weight and decoder\.embed_tokens\.weight differ", state=state)
    state = ofa_state(model)
    del state["decoder.layers.1.cross_attn_mid_layer_norm.bias"]
    state["decoder.layers.0.weight_ffn"] = torch.zeros(32)
    refused(
        "strict",
        r"missing decoder\.layers\.1\.cross_attn_ln\.bias[\s\S]*unexpected decoder.*weight_ffn",
        state=state,
    )
    chinese = ofa_folder(tmp_path / "cn", model)
    (chinese / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(CheckpointError, match="WordPiece"):
        load_checkpoint(chinese)
    other = Vocabulary.train(["z"], 256)
    refused("size", "tokens, the vocabulary", vocabulary=other)
    (tmp_path / "size" / "vocab.json").write_text('{"<s>": 0, "<unk>": 1, "a": 2, "b": 3, "<mask>": 4}')
    with pytest.raises(CheckpointError, match=r"vocab\.json.*token 1 is '<unk>', not <pad>"):
        load_checkpoint(tmp_path / "size")
    (tmp_path / "size" / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no pytorch_model\.bin and no model\.safetensors"):
        load_checkpoint(tmp_path / "size")
    assert fairseq_key("decoder.layers.3.cross_attn.c_attn") == "decoder.layers.3.encoder_attn.c_attn"
    assert ofa_config(model)["d_model"] == 32
