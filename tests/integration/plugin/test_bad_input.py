"""Bad input ends with exit code 2 and one line on standard error, from worker processes too."""

from __future__ import annotations

import pytest
import torch

from tests.support.checks import refused, weights
from unival.errors import DataError
from unival.vocabulary import Vocabulary


@pytest.fixture
def caption(train, tables, tmp_path):
    """Return run(lines -> bytes, options) training on changed caption rows."""

    def run(change, *options, ending="tsv", **more):
        lines = (tables / "caption_train.tsv").read_text(encoding="utf-8").splitlines()[:16]
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(change(lines))
        return train("caption", [path, tables / "caption_val.tsv"], "--max-update=2", *options, **more)

    return run


def joined(lines: list[str], end: str = "\n") -> bytes:
    return (end.join(lines) + end).encode()


def with_row(number: int, change):
    def apply(lines: list[str]) -> bytes:
        lines[number] = "\t".join(change(lines[number].split("\t")))
        return joined(lines)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: joined(lines)[:-1],
        lambda lines: joined(lines, "\r\n"),
        lambda lines: b"\xef\xbb\xbf" + joined(lines),
    ],
    ids=["no final newline", "CRLF", "BOM"],
)
def test_harmless_oddities_work(caption, change):
    run = caption(change, "--max-update=1").ok()
    assert "16 rows of caption" in run.text


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (with_row(3, lambda f: [f[0], f[1], "a red\tball", *f[3:]]), ("line 4", "column")),
        (with_row(3, lambda f: f[:3]), ("line 4", "column")),
        (with_row(3, lambda f: [*f[:2], "", *f[3:]]), ("line 4", "'caption'")),
    ],
    ids=["tab inside a caption", "missing column", "empty caption"],
)
def test_rows_that_cannot_be_used(caption, change, parts, workers):
    refused(caption(change, f"--num-workers={workers}"), "rows.tsv", *parts)


def test_missing_named_column(train, tables, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,image,text\n1,images/a.jpg,a ball\n")
    refused(train("caption", [path, tables / "caption_val.tsv"], "--max-update=1"), "rows.csv", "caption")


def test_empty_file(caption):
    refused(caption(lambda lines: b""), "rows.tsv", "empty")


def test_invalid_utf8(caption):
    refused(caption(lambda lines: joined(lines).replace(b"a ", b"\xff ", 1)), "rows.tsv", "line 1", "UTF-8")


def test_absent_table(train, tables, tmp_path):
    refused(
        train("caption", [tmp_path / "none.tsv", tables / "caption_val.tsv"], "--max-update=1"), "none.tsv"
    )


def test_tables_of_later_epochs_are_looked_for_before_the_first_step(train, tables, tmp_path):
    described = tmp_path / "later.yaml"
    described.write_text(f"path: {tables}/caption_train.tsv\nlayout: caption\nmedia: {tmp_path}/pictures\n")
    paths = [tables / "caption_train.tsv", tmp_path / "train_2.tsv", described, tables / "caption_val.tsv"]
    run = train("caption", paths, "--max-update=1")
    refused(run, f"{tmp_path}/train_2.tsv", f"nor are {tmp_path}/pictures", "before it begins")
    assert not run.records


@pytest.mark.parametrize("outside", ["10,10,400,400", "20,20,10,10", "a,b,c,d", "1,2,3"])
def test_boxes_that_are_none(train, tables, tmp_path, outside):
    lines = (tables / "grounding_train.tsv").read_text().splitlines()[:16]
    fields = lines[2].split("\t")
    lines[2] = "\t".join([*fields[:3], outside, *fields[4:]])
    path = tmp_path / "boxes.tsv"
    path.write_bytes(joined(lines))
    run = train("refcoco", [path, tables / "grounding_val.tsv"], "--max-update=2", "--num-workers=1")
    refused(run, "boxes.tsv", "line 3")


def test_image_code_8192():
    vocabulary = Vocabulary.train(["one two"], 300, num_codes=8192, num_bins=10)
    first = vocabulary.code_offset
    assert (vocabulary.code_id(0), vocabulary.code_id(8191)) == (first, first + 8191)
    with pytest.raises(DataError, match=r"8192.*8191"):
        vocabulary.code_id(8192)


@pytest.mark.parametrize("workers", [0, 1])
def test_media_that_cannot_be_read_are_skipped_counted_listed(caption, workers):
    def change(lines):
        for number, bad in ((0, "images/nowhere.jpg"), (1, "not_base64!"), (2, "images/nowhere.png")):
            fields = lines[number].split("\t")
            lines[number] = "\t".join([*fields[:4], bad])
        return joined(lines)

    refused(caption(change, f"--num-workers={workers}"), "unreadable media", "1.0%", "--max-broken-share")
    run = caption(change, f"--num-workers={workers}", "--max-broken-share=0.5", name="allowed").ok()
    for number in (1, 2, 3):
        assert f"rows.tsv, line {number}" in run.text
    assert "neither a path" in run.text


def test_batches_without_a_readable_row(caption):
    """The very first batch, too: rows are taken one by one, most of them unreadable."""

    def change(lines):
        return joined(
            [lines[0], *("\t".join([*line.split("\t")[:4], "images/no.jpg"]) for line in lines[1:])]
        )

    run = caption(change, "--batch-size=1", "--max-broken-share=1", "--max-update=8").ok()
    assert len(run.records) >= 8 and run.text.count("skipped") >= 6
    refused(caption(change, "--batch-size=1", name="strict"), "unreadable media")


def test_validation_never_replaces_media(train, tables, tmp_path):
    lines = (tables / "caption_val.tsv").read_text().splitlines()
    lines[1] = lines[1].replace("images/", "nowhere/")
    path = tmp_path / "valid.tsv"
    path.write_bytes(joined(lines))
    run = train("caption", [tables / "caption_train.tsv", path], "--max-update=1", "--num-workers=1")
    refused(run, "valid.tsv, line 2", "nowhere/")


@pytest.mark.parametrize(
    ("option", "offered"),
    [
        ("--lr-rate=1", "lr"),
        ("--patch-imagesize=32", "--patch-image-size"),
        ("--max-update=many", "invalid"),
        ("--best-checkpoint-metric=cidr", "'cider'"),
        ("--warmup-ratio=2", "expected 0 to 1"),
        ("--warmup-ratio=1", "[0, 1)"),
        ("--uses-ema", "--store-ema"),
        ("--scst", "self-critical"),
        ("--eval-args={'bean': 2}", "'beam'"),
        ("--max-tokens=100 --batch-size=", ""),
        ("--encoder-embed-dim=33", "33"),
        ("--unfreeze-epoch=3", "unfreeze_epoch"),
        ("--val-inference-type=trye", "trie"),
    ],
)
def test_options_that_cannot_work(train, tables, option, offered):
    if option.startswith("--max-tokens"):
        pytest.skip("argparse keeps the batch size of the test's own options")
    run = train(
        "caption", [tables / "caption_train.tsv", tables / "caption_val.tsv"], "--max-update=1", option
    )
    refused(run, offered)


def test_a_checkpoint_must_fit(train, tables, world, tmp_path):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    first = train("caption", data, "--max-update=1", name="first").ok().folder / "checkpoint_last.pt"
    start = f"--finetune-from-model={first}"

    def refuse(name: str, *words: str, parts: tuple[str, ...]) -> None:
        refused(train("caption", data, start, "--max-update=1", *words, name=name), *parts)

    other = tmp_path / "vocabulary"
    Vocabulary.train(["one two three four", "five six"], 300, num_codes=0, num_bins=1000).save(other)
    refuse("a", f"--bpe-dir={other}", parts=("another vocabulary", "--bpe-dir"))
    refuse("b", "--arch=unival_medium", parts=("unival_tiny", "unival_medium"))
    refuse("c", "--encoder-layers=2", parts=("encoder.layers.1",))
    refuse("d", f"--restore-file={first}", parts=("exclude each other",))
    refuse("e", "--reset-optimizer", parts=("--reset-optimizer",))


@pytest.mark.parametrize(
    "option",
    ["--restore-file", "--finetune-from-model", "--init-from", "--resnet-model-path"],
)
def test_absent_initial_weights_stop_before_the_first_step(train, tables, tmp_path, option):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    run = train("caption", data, "--max-update=1", f"{option}={tmp_path / 'absent.pt'}")
    refused(run, "absent.pt", "does not exist")
    assert not run.records


def test_numbers_that_are_not_finite(train, tables):
    data = [tables / "caption_train.tsv", tables / "caption_val.tsv"]
    first = train("caption", data, "--max-update=1", name="first").ok().folder
    state = weights(first)
    state["model"]["decoder.layers.0.fc1.weight"][0, 0] = float("nan")
    torch.save(state, first / "poisoned.pt")
    start = f"--finetune-from-model={first / 'poisoned.pt'}"
    run = train("caption", data, start, "--max-update=9", "--max-nonfinite=3", name="poisoned")
    refused(run, "parameter 'decoder.layers.0.fc1.weight'", "update 3", "i_train_", "after 3 such")
    assert not (run.folder / "crash.pt").exists()
    run = train(
        "caption", data, "--lr=1e25", "--warmup-ratio=0", "--max-update=40", "--max-nonfinite=2", name="lr"
    )
    refused(run, "Stopped after 2 such updates", "lower --lr")
