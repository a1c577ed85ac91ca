"""What is not the official file is refused by name and key, and nothing is written."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unival.datatools.corpora import CORPORA, get_corpus
from unival.errors import ConfigError
from unival.tables import LAYOUTS

ROOT = Path(__file__).resolve().parents[3]
KARPATHY = {
    "images": [
        {
            "split": "train",
            "cocoid": 1,
            "filepath": "train2014",
            "filename": "a.jpg",
            "sentences": [{"raw": "A dog.", "sentid": 1}],
        }
    ]
}


def without(content, *path):
    """A copy without the last key of ``path``."""
    content = copy.deepcopy(content)
    item = content
    for key in path[:-1]:
        item = item[key]
    del item[path[-1]]
    return content


@pytest.mark.parametrize(
    "content, words",
    [
        (without(KARPATHY, "images"), ["dataset_coco.json", "'images'"]),
        (without(KARPATHY, "images", 0, "cocoid"), ["image 0", "'cocoid'"]),
        (without(KARPATHY, "images", 0, "sentences", 0, "raw"), ["image 0", "'raw'", "sentid"]),
        ({"images": [{**KARPATHY["images"][0], "split": "dev"}]}, ["'dev'", "restval"]),
        ({"images": [{**KARPATHY["images"][0], "cocoid": None}]}, ["'cocoid'", "expected str or int"]),
        ({"images": {}}, ["'images'", "expected list"]),
        ([1], ["found list"]),
        ({"images": []}, ["hold no records"]),
        ("{broken", ["not valid JSON"]),
    ],
)
def test_coco_annotations_that_are_not(place, raises_data_error, content, words):
    place.write("dataset_coco.json", content)
    text = raises_data_error("coco")
    assert all(word in text for word in words), text


def test_files_are_asked_for_by_their_official_names(place, raises_data_error):
    text = raises_data_error("refcoco")
    assert "refs(unc).p" in text and "--refs" in text
    text = raises_data_error("coco", "--karpathy", "elsewhere.json")
    assert "elsewhere.json" in text


def test_csv_columns_and_short_rows(place, raises_data_error):
    place.write("train.csv", "audiocap_id,youtube_ids,start_time,caption\n")
    text = raises_data_error("audiocaps")
    assert "column 'youtube_id'" in text and "Did you mean 'youtube_ids'?" in text
    place.write("train.csv", "audiocap_id,youtube_id,start_time,caption\n1,x\n")
    assert "line 2" in raises_data_error("audiocaps")
    place.official.joinpath("train.csv").write_bytes(
        b"audiocap_id,youtube_id,start_time,caption\n1,x,0,\xff\n"
    )
    assert "UTF-8" in raises_data_error("audiocaps")


def test_lists_that_do_not_fit(place, raises_data_error):
    place.write("sbu-captions-all.json", {"image_urls": ["a"], "captions": []})
    assert "1 image_urls and 0 captions" in raises_data_error("sbu")
    place.write("cc12m.tsv", "http://x/a.jpg\tgood\nno tab\n")
    assert "line 2" in raises_data_error("cc12m")
    place.write("train.json", {"v": {"timestamps": [[0, 1]], "sentences": []}})
    place.write("val_2.json", {})
    assert "1 timestamps, 0 sentences" in raises_data_error("activitynet")
    place.write("train.json", {"v": {"timestamps": [[0, None]], "sentences": ["a"]}})
    assert "expected a time in seconds, found None" in raises_data_error("activitynet")
    place.write("snli_ve_train.jsonl", "{}\n{broken\n")
    assert "line 1" in raises_data_error("snli_ve")


def test_questions_and_annotations_of_different_parts(place, raises_data_error):
    place.write(
        "OpenEnded_mscoco_val2014_questions.json",
        {"questions": [{"question_id": 1, "image_id": 1, "question": "Why?"}]},
    )
    place.write(
        "mscoco_val2014_annotations.json",
        {"annotations": [{"question_id": 2, "answers": [{"answer": "no"}]}]},
    )
    assert "do not belong together" in raises_data_error("okvqa")


def test_a_damaged_pickle(place, raises_data_error):
    place.write("instances.json", {"images": [], "annotations": []})
    (place.official / "refs(unc).p").write_bytes(b"\x80\x02]q\x00(")
    assert "not a readable pickle" in raises_data_error("refcoco")


def test_settings_that_cannot_work(place, raises_data_error):
    place.write("dataset_coco.json", KARPATHY)
    assert "--media-root" in raises_data_error(
        "coco", "--media-root", str(place.root / "none"), "--check-media"
    )
    text = raises_data_error("coco", "--media-name", "{folder}/{fil}.jpg")
    assert "'fil'" in text and "Did you mean 'file'?" in text
    assert "read as base64" in raises_data_error("coco", "--media-name", "{folder}/{id}")
    assert "--shuffles is 0" in raises_data_error("coco", "--shuffles", "0")
    assert "cannot be read" in raises_data_error("coco", "--exclude", str(place.root / "none.tsv"))
    place.write(
        "clotho_captions_development.csv", "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    )
    text = raises_data_error("clotho", "--hold-out", "3")
    assert "--hold-out 3" in text and "there are 0" in text
    with pytest.raises(SystemExit):  # video stays video: the option does not exist there
        place.run("msrvtt", "--base64")
    with pytest.raises(ConfigError, match="Did you mean 'clotho'"):
        get_corpus("cloto")


def test_a_media_name_cannot_leave_the_media_root(place, raises_data_error):
    entry = {**KARPATHY["images"][0], "filename": "../../secret.jpg"}
    place.write("dataset_coco.json", {"images": [entry]})
    assert "leaves the media root" in raises_data_error("coco", "--base64")


def test_a_failed_run_leaves_the_old_tables(place):
    place.write("dataset_coco.json", KARPATHY)
    assert place.run("coco")[0] == 0
    before = {p: p.read_bytes() for p in place.out.rglob("*") if p.is_file()}
    later = {**KARPATHY["images"][0], "sentences": [{"raw": "Later."}]}
    place.write("dataset_coco.json", {"images": [*KARPATHY["images"], later]})
    assert place.run("coco")[0] == 2
    assert {p: p.read_bytes() for p in place.out.rglob("*") if p.is_file()} == before


def test_files_of_an_earlier_run_are_named(place):
    place.write("dataset_coco.json", KARPATHY)
    assert place.run("coco", "--shuffles", "3")[0] == 0
    assert not any("earlier run" in note for note in place.report("coco")["notes"])
    code, text = place.run("coco", "--shuffles", "2")
    assert code == 0 and "caption_stage1_train_3.tsv is from an earlier run" in text
    place.write("dataset_coco.json", {"images": [{**KARPATHY["images"][0], "split": "val"}]})
    _, text = place.run("coco")
    assert "caption_stage1_train_1.tsv is from an earlier run" in text and "coco_caption.tsv is from" in text


def test_broken_media_of_the_sample_are_named(place):
    place.write("dataset_coco.json", KARPATHY)
    (place.root / "train2014").mkdir()
    (place.root / "train2014/a.jpg").write_bytes(b"no picture")
    code, text = place.run("coco", "--decode", "5")
    assert code == 1 and "cannot be decoded" in text and "a.jpg" in text
    assert len(place.report("coco")["undecodable_media"]) == 1


def test_every_corpus_is_complete():
    names = set()
    for name in CORPORA:
        corpus = get_corpus(name)
        assert corpus.name == name
        for table in corpus.tables:
            assert table.layout in LAYOUTS or table.layout == "jsonl"
            assert (table.layout == "pretrain") == bool(table.kind and table.dataset)
            assert (table.name, table.shuffled) not in names, "two corpora write one file"
            names.add((table.name, table.shuffled))


def test_the_command_in_a_process_of_its_own(place):
    place.write("dataset_coco.json", KARPATHY)
    command = [sys.executable, "-m", "unival", "data", "prepare", "coco", "--annotations", place.official]
    done = subprocess.run([*command, "--out", place.out], capture_output=True, text=True, check=True)
    assert "caption_data/caption_stage1_train_{1..10}.tsv" in done.stdout
    assert (place.out / "caption_data/caption_stage1_train_10.tsv").is_file()


def written_files() -> set[str]:
    from unival.datatools.corpora.pretrain import MERGES

    written = {f"pretrain_ours/{name}.tsv" for name in MERGES}
    for name in CORPORA:
        corpus = get_corpus(name)
        for table in corpus.tables:
            ending = "_{1..10}" if table.shuffled else ""
            written.add(f"{table.name}{ending}.{'jsonl' if table.layout == 'jsonl' else 'tsv'}")
        if corpus.answers:
            written |= {f"{corpus.answers.name}.pkl", f"{corpus.answers.name}.json"}
    return written


def test_recipes_name_tables_that_are_written():
    """The values of the recipes, not their comments; text-to-image tables are made by ``unival data codes``."""
    named = {}
    for folder in ("finetune", "evaluate", "pretrain"):
        for path in (ROOT / "configs" / folder).glob("*.yaml"):
            text = "\n".join(line.split(" #")[0] for line in path.read_text(encoding="utf-8").splitlines())
            for name in re.findall(r"\$\{UNIVAL_DATA\}/ofa/([\w/]+(?:\{1\.\.10\})?\.(?:tsv|pkl|json))", text):
                named[name] = path.name
    absent = {name: recipe for name, recipe in named.items() if "image_gen_data" not in name}
    absent = {name: recipe for name, recipe in absent.items() if name not in written_files()}
    assert len(named) > 25 and not absent, absent


def test_documented_files_are_written():
    documented = (ROOT / "docs/preparing-data.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+_data)/[\w/]+(?:\{1\.\.10\})?\.(?:tsv|pkl))`", documented))
    assert len(named) > 20 and named <= written_files(), named - written_files()
