"""Table descriptions: mappings and YAML files over tables as other people made them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from unival.errors import ConfigError, DataError
from unival.tables import open_table

CLIPS = "clip\tsplit\tboxes\tsentence\n" + "".join(
    f"c{i}\t{split}\t{i % 3}\tbin blue {i}\n"
    for i, split in enumerate(["train", "val", "train", "test", "train"])
)


@pytest.fixture
def clips(tmp_path: Path) -> str:
    path = tmp_path / "clips.tsv"
    path.write_text(CLIPS, encoding="utf-8")
    (tmp_path / "media").mkdir()
    return str(path)


def test_where_fields_templates_and_limit(clips: str, tmp_path: Path) -> None:
    description = {
        "path": clips,
        "where": {"split": ["train", "val"], "boxes": [0, "1", 2]},
        "fields": {"video": "{split}/{clip}.mp4", "caption": "sentence", "id": "clip"},
        "constants": {"type": "video_caption"},
        "media": str(tmp_path / "media"),
        "limit": 3,
    }
    table = open_table(description, fields=("video", "caption", "type"))
    assert len(table) == 3 and table.media_root == str(tmp_path / "media")
    assert table.columns[:4] == ("video", "caption", "id", "type") and "sentence" in table.columns
    row = table[-1]
    assert (row["video"], row["caption"], row["id"], row["type"]) == (
        "train/c2.mp4",
        "bin blue 2",
        "c2",
        "video_caption",
    )
    assert (row.path, row.line, row["clip"]) == (clips, 4, "c2")
    assert [r["id"] for r in pickle.loads(pickle.dumps(table))] == ["c0", "c1", "c2"]
    assert len(open_table({**description, "limit": 100})) == 4


def test_yaml_paths_start_at_its_folder(clips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips.yaml").write_text(
        "path: clips.tsv\nwhere: {split: test}\nfields:\n  video: '{clip}.mp4'\nmedia: media\n",
        encoding="utf-8",
    )
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    table = open_table("../clips.yaml", fields=("video",), media_root="not used")
    assert [dict(r)["video"] for r in table] == ["c3.mp4"]
    assert table.media_root is not None and Path(table.media_root).samefile(tmp_path / "media")


def test_defaults_of_media_root(clips: str, tmp_path: Path) -> None:
    assert open_table({"path": clips}).media_root == str(tmp_path)
    assert open_table({"path": clips}, media_root="/m").media_root == "/m"
    with pytest.raises(DataError, match="nowhere: the 'media' of the table description does not exist"):
        open_table({"path": clips, "media": str(tmp_path / "nowhere")})


def test_header_rule_judges_by_the_mapped_columns(clips: str) -> None:
    description = {
        "path": clips,
        "fields": {"video": "{clip}.mp4", "caption": "sentence"},
        "where": {"split": "val"},
    }
    table = open_table(description, fields=("video", "caption"), layout="video_caption")
    assert [(r["video"], r.line) for r in table] == [("c1.mp4", 3)]


def test_headerless_columns_have_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a dog\tx\ttrain\na cat\ty\tval\n", encoding="utf-8")
    description = {"path": str(path), "format": "tsv", "header": False, "where": {2: "val"}}
    description["fields"] = {"caption": 0, "image": "{1}.png"}
    table = open_table(description)
    assert [(r["caption"], r["image"]) for r in table] == [("a cat", "y.png")]


def test_reference_file_with_where_on_canonical_names(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("1\t17\ta dog\t\tx.jpg\n2\t18\ta cat\t\ty.jpg\n", encoding="utf-8")
    description = {"path": str(path), "layout": "caption", "selected_cols": "1,4,2", "where": {"id": 18}}
    assert [dict(r) for r in open_table(description)] == [{"id": "18", "image": "y.jpg", "caption": "a cat"}]


def test_jsonl_values_compare_as_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"n": 1, "ok": True, "x": None}, {"n": 2, "ok": False, "x": "y"}, {"n": 1, "ok": True, "x": "z"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    table = open_table({"path": str(path), "where": {"n": "1", "ok": True}, "fields": {"id": "{n}-{ok}-{x}"}})
    assert [r["id"] for r in table] == ["1-true-", "1-true-z"]
    assert len(open_table({"path": str(path), "where": {"x": None}})) == 1


def test_concatenated_and_nested_filters(clips: str) -> None:
    train = open_table({"path": clips, "where": {"split": "train"}})
    assert train.matching({"boxes": lambda v: v == "2"}).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whre": {}}, "unknown key 'whre'. Did you mean 'where'"),
        ({"path": None}, "'path' is missing"),
        ({"where": ["split"]}, "'where' is .*expected a mapping"),
        ({"limit": 0}, "'limit' is 0; expected a number of rows of at least 1"),
        ({"limit": True}, "'limit' is True"),
        ({"limit": "5"}, "'limit' is '5'"),
        ({"header": "yes"}, "'header' is 'yes'; expected true or false"),
        ({"format": "xls"}, "'xls' is not a table format"),
        ({"layout": "captoin"}, "Did you mean 'caption'"),
        ({"selected_cols": {"a": 1}}, "'selected_cols' is"),
        ({"fields": {"video": "{clip!r}.mp4"}}, "only column names may stand in braces"),
        ({"fields": {"video": "{clip.x}"}}, "column 'clip.x'"),
        ({"fields": {"video": "{}.mp4"}}, "only column names may stand in braces"),
        ({"fields": {"video": "{clip.mp4"}}, "template '{clip.mp4'"),
        ({"fields": {"video": "{{clip}}"}}, "names no column; use 'constants:'"),
        ({"fields": {"a": "clip"}, "constants": {"a": 1}}, "'a' is in 'fields' and in 'constants'"),
        ({"fields": {"caption": "sentense"}}, "column 'sentense': .*Did you mean 'sentence'"),
        ({"where": {"splt": "train"}}, "column 'splt': .*Did you mean 'split'"),
        ({"where": {"split": "trian"}}, "no row passes where: .*'split' has 'train', 'val', 'test'"),
    ],
)
def test_bad_descriptions(clips: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        open_table({"path": clips, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: [", r"t\.yaml, line 2: not valid YAML"),
        ("- path: a.tsv", r"t\.yaml: expected a mapping with 'path:', found list"),
        ("", "expected a mapping"),
        ("path: no.tsv", r"no\.tsv: there is no such file"),
        ("path: \udcff", "invalid UTF-8"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises((ConfigError, DataError), match=message):
        open_table(tmp_path / "t.yaml")
    with pytest.raises(DataError, match=r"absent\.yaml: cannot be read"):
        open_table(tmp_path / "absent.yaml")


SHARED = Path(__file__).resolve().parents[4] / "shared" / "realdata"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/realdata beside the checkout")
@pytest.mark.parametrize(
    ("path", "media", "where", "fields", "rows"),
    [
        ("flickr8k_small/captions.tsv", "images_train.tar", {}, {"id": "{image}#{caption_id}"}, 7500),
        ("flickr8k_small/grounding.tsv", "images_train.tar", {"n_boxes": 1}, {"text": "phrase"}, 15800),
        ("flickr8k_small/entailment.tsv", "images_train.tar", {}, {"caption": "premise_caption"}, 3360),
        ("flickr8k_small/image_text_matching.tsv", "images_train.tar", {}, {"caption": "text"}, 5202),
        ("easy_vqa_small/questions.tsv", "images_train.tar", {}, {}, 11584),
        ("easy_vqa_video/questions.tsv", "video_train.tar", {}, {}, 1425),
        ("esc10/labels.tsv", "audio_train.tar", {}, {"caption": "label"}, 240),
        (
            "grid_s1/transcripts.tsv",
            "video_train.tar",
            {},
            {"video": "{clip}.mp4", "caption": "sentence"},
            300,
        ),
        ("noto_emoji/captions.tsv", "images_train.tar", {}, {"caption": "name"}, 1304),
    ],
)
def test_real_tables_need_no_special_code(
    path: str, media: str, where: dict[str, Any], fields: dict[str, str], rows: int,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("UNIVAL_CACHE", str(tmp_path))
    before = sorted(p.name for p in (SHARED / path).parent.iterdir())
    table = open_table(
        {
            "path": str(SHARED / path),
            "where": {"split": "train", **where},
            "fields": fields,
            "media": str((SHARED / path).parent / media),
        },
        fields=tuple(fields),
    )
    assert abs(len(table) - rows) <= (
        300 if where else 0
    )  # the README gives grounded phrases as "about 81 %"
    assert {r["split"] for r in table} == {"train"} and all(r[f] for r in table for f in fields)
    # the folder is read-only (by its mode even for root): the index went to the cache
    assert sorted(p.name for p in (SHARED / path).parent.iterdir()) == before
    assert len(list((tmp_path / "index").iterdir())) == 1


def test_group_makes_one_row_per_value_and_lists_what_differs(tmp_path):
    path = tmp_path / "captions.tsv"
    path.write_text("image\tsplit\tcaption\na.png\ttest\tone\nb.png\ttest\ttwo\na.png\ttest\tthree\n")
    table = open_table({"path": str(path), "where": {"split": "test"}, "group": "image"})
    assert len(table) == 2
    assert table[0]["caption"] == ["one", "three"] and table[0]["split"] == "test" and table[0].line == 2
    assert table[1]["caption"] == "two"


def test_group_by_a_column_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "captions.tsv"
    path.write_text("image\tcaption\na.png\tone\n")
    with pytest.raises(DataError, match="picture"):
        open_table({"path": str(path), "group": "picture"})
