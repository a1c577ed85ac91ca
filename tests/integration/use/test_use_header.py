"""What a checkpoint says, whichever layout it has, and which of the options count."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from tests.support.released_files import SMALL, released, small_model
from unival.checkpoint import Header
from unival.checkpoint.convert import convert
from unival.checkpoint.resolve import Wanted, laid_over, resolve
from unival.cli import main
from unival.errors import CheckpointError, ConfigError
from unival.predict.predictor import load
from unival.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def file(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released file of image captioning, which carries no vocabulary."""
    task = {"patch_image_size": 32, "eval_args": '{"beam": 2, "max_len_b": 6}', "code_dict_size": 16}
    state = small_model(len(vocabulary)).state_dict()
    path = tmp_path_factory.mktemp("released") / "r.pt"
    return released(path, state, "unival_base", "caption", SMALL, {**task, "num_bins": 40})


@pytest.fixture
def bpe(vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The vocabulary where released files find theirs, without the file that says how many codes it has."""
    folder = tmp_path / "weights" / "bpe"
    vocabulary.save(folder)
    (folder / "vocabulary.json").unlink()
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(folder.parent))
    return folder


def test_every_layout_says_the_same(folder, vocabulary, tmp_path):
    there = Header.read(folder)
    assert there.task == {"name": "caption"} and there.options["num_frames"] == 2 and there.weights == "raw"
    assert there.fingerprint == vocabulary.fingerprint() and there.lineage is None
    exported, _ = convert(folder, tmp_path / "x.pt", "fairseq", prompts={"vqa": " {question} ?"})
    back, _ = convert(exported, tmp_path / "back", "huggingface")
    for path in (exported, back):
        header = Header.read(path)
        for name in ("family", "arch", "weights", "task", "options", "decoding", "fingerprint", "lineage"):
            assert getattr(header, name) == getattr(there, name), name
        assert header.prompts == {"vqa": " {question} ?"} and header.all_prompts["caption.video"]
        assert header.vocabulary(tmp_path / "not there").fingerprint() == there.fingerprint
    with pytest.raises(CheckpointError, match=r"config\.json' is missing"):
        Header.read(tmp_path)


def test_what_counts():
    """The call over a recipe, or over the checkpoint where there is no recipe."""
    said = {"num_frames": 3, "answers": ["yes", "no"], "from_a_newer_version": 1}
    header = Header(
        "x",
        task={"name": "vqa", "modality": "video"},
        options=said,
        prompts={"vqa": " {question} ?"},
        decoding={"mode": "rank", "settings": {"beam": 7, "max_len_b": 9}},
    )
    found = resolve(header, Wanted())
    assert (found.spec.name, found.spec.modality, found.mode) == ("vqa", "video", "rank")
    assert found.options.num_frames == 3 and found.options.answers == ("yes", "no")
    assert found.options.prompts == header.prompts and found.decoding == {"beam": 7, "max_len_b": 9}
    found = resolve(header, Wanted("vqa", "video", decoding={"beam": 2}, options={"num_frames": 5}))
    assert found.decoding == {"beam": 2, "max_len_b": 9} and found.options.num_frames == 5
    assert resolve(header, Wanted("vqa", "image")).decoding == {}, "validated on videos"
    assert resolve(header, Wanted("caption")).options.num_frames == 3, "options count for every task"
    listed = resolve(header, Wanted(options={"ans2label_dict": {"maybe": 0}})).options
    assert listed.answers is None and listed.ans2label_dict == {"maybe": 0}
    assert resolve(header, Wanted(mode="open")).options.answers is None
    fresh = resolve(header, Wanted(), zero_shot=True)
    assert fresh.spec.modality == "video" and fresh.options.num_frames != 3 and not fresh.decoding
    recipe = Wanted("caption", "audio", "open", {"num_frames": 8}, {"beam": 4})
    found = resolve(header, Wanted(options={"seed": 3}), recipe)
    assert (found.spec.name, found.spec.modality, found.mode) == ("caption", "audio", "open")
    assert found.options.num_frames == 8 and found.options.seed == 3 and not found.options.prompts
    assert found.decoding == {"beam": 4}
    with pytest.raises(ConfigError, match="does not say what it was trained for"):
        resolve(Header("x"), Wanted())
    with pytest.raises(ConfigError, match="name the one"):
        resolve(Header("x", task={"name": "pretrain"}), Wanted())


def test_one_rule_finds_the_vocabulary(file, bpe, media, vocabulary, tmp_path, monkeypatch):
    """Loading, evaluation, conversion and training look in the same places."""
    table = tmp_path / "t.tsv"
    table.write_text(f"id\timage\tcaption\n1\t{media / 'a.png'}\ta red circle\n")
    written = []
    for number, words in enumerate(([], ["--bpe-dir", str(media / "vocabulary")])):
        out = tmp_path / f"e{number}"
        assert main(["evaluate", str(file), str(table), "--out", str(out), "--device", "cpu", *words]) == 0
        written.append((out / "predictions.jsonl").read_text())
        result = json.loads((out / "result.json").read_text())
        assert result["decoding"]["beam"] == 2, "a released file's own decoding counts as in unival.load"
    assert written[0] == written[1]
    assert load(file, device="cpu").caption(media / "a.png").text == json.loads(written[0])["prediction"]
    assert main(["convert", str(file), str(tmp_path / "c")]) == 0
    pytest.importorskip("fairseq")
    from unival.tasks.base import _vocabulary
    from unival.tasks.options import TaskOptions

    plain, codes = TaskOptions(), TaskOptions(code_dict_size=16, num_bins=40)
    for args, options in (
        (Namespace(), codes),
        (Namespace(finetune_from_model=str(file)), plain),
        (Namespace(restore_file=str(tmp_path / "c")), plain),
        (Namespace(restore_file="checkpoint_last.pt"), TaskOptions(bpe_dir=str(media / "vocabulary"))),
    ):
        assert _vocabulary(args, options).fingerprint() == vocabulary.fingerprint()
    monkeypatch.setenv("UNIVAL_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"empty/bpe.*unival download bpe"):
        _vocabulary(Namespace(), plain)
    assert main(["evaluate", str(file), str(table), "--out", str(tmp_path / "no")]) == 2


def test_prompts_of_a_call_leave_the_others_as_they_were():
    """A prompt for questions made a released audio captioning file ask about "the audio" again."""
    said = {"prompts": {"caption.audio": " what does the video describe?"}, "num_frames": 4}
    laid = laid_over(said, {"prompts": {"vqa": " {question} now"}})
    assert laid["prompts"] == {**said["prompts"], "vqa": " {question} now"} and laid["num_frames"] == 4
    assert laid_over(said, {})["prompts"] == said["prompts"]
