"""WebVid, WebVidQA, MSRVTT, MSVD, ActivityNet, AudioCaps, Clotho: splits stay apart, files are named as official."""

from __future__ import annotations

import json

import pytest

from unival.specs import SpecOptions, get_spec
from unival.specs.answers import read_answer_list
from unival.tables import open_table

CAPTIONS, QA = "video_data/caption_data", "video_data/vqa_data"


def test_webvid_and_webvidqa(place):
    header = "videoid,contentUrl,duration,page_dir,name\n"
    place.write(
        "results_2M_train.csv",
        header
        + '11,http://x,PT00H,000001_000050,"Sea, ""blue""\tand café"\n11,http://x,PT,000001_000050,Again\n'
        "12,http://x,PT00H,000051_000100,A dog\n13,http://x,PT,000051_000100,Also in val\n",
    )
    place.write("results_2M_val.csv", header + "13,http://x,PT00H,000051_000100,Also in val\n")
    qa = {
        "11": {"question": ["What is blue?", ["Which?", "other wording"]], "answer": ["sea", "the sea"]},
        "13": {"question": ["What?"], "answer": [""]},
        "99": {"question": ["Not in the training list?"], "answer": ["no"]},
    }
    place.write("webvidvqa.pkl", qa)
    assert place.run("webvid", "--text", "original", "--media-name", "webvid/{page_dir}/{id}.mp4")[0] == 0
    rows = place.rows("pretrain_ours/parts/webvid_video_caption.tsv", "pretrain")
    assert [(r["id"], r["media"], r["caption"], r["type"]) for r in rows] == [
        ("webvid11", "webvid/000001_000050/11.mp4", 'Sea, "blue" and café', "video_caption"),
        ("webvid12", "webvid/000051_000100/12.mp4", "A dog", "video_caption"),
    ]
    assert place.dropped("webvid") == {
        "id twice, pretrain_ours/parts/webvid_video_caption": 1,
        "medium is also in an evaluation split": 1,
    }
    assert place.run("webvidqa", "--text", "original")[0] == 0
    rows = place.rows("pretrain_ours/parts/webvid_video_qa.tsv", "pretrain")
    assert [(r["question"], r["refs"], r["type"]) for r in rows] == [
        ("What is blue?", "1.0|!+sea", "video_qa"),
        ("Which?", "1.0|!+the sea", "video_qa"),
    ]
    assert place.report("webvidqa")["records"]["not in the training list"] == 1


def videodatainfo(*videos: tuple[int, str, list[str]]) -> dict:
    return {
        "videos": [{"video_id": f"video{n}", "split": split, "id": n} for n, split, _ in videos],
        "sentences": [
            {"video_id": f"video{n}", "sen_id": 100 * n + k, "caption": text}
            for n, _, texts in videos
            for k, text in enumerate(texts)
        ],
    }


@pytest.fixture
def msrvtt(place):
    trainval = videodatainfo((0, "train", ["a car\ndrives", "a ça"]), (1, "validate", ["x", "y"]))
    place.write("train_val_videodatainfo.json", trainval)
    place.write("test_videodatainfo.json", videodatainfo((2, "test", ["q", "r"]), (3, "test", [])))
    return place


def test_msrvtt(msrvtt):
    assert msrvtt.run("msrvtt", "--media-name", "msrvtt/{id}.mp4")[0] == 0
    train = msrvtt.rows(f"{CAPTIONS}/msrvtt_caption_train_10.tsv", "video_caption")
    assert {(r["id"], r["video"], r["caption"]) for r in train} == {
        ("video0_0", "msrvtt/video0.mp4", "a car drives"),
        ("video0_1", "msrvtt/video0.mp4", "a ça"),
    }
    (val,) = msrvtt.rows(f"{CAPTIONS}/msrvtt_caption_val.tsv", "video_caption")
    assert val["caption"] == "x&&y" and val["id"] == "video1"
    (test,) = msrvtt.rows(f"{CAPTIONS}/msrvtt_caption_test3k.tsv", "video_caption")
    assert test["caption"] == "q&&r"
    assert msrvtt.dropped("msrvtt") == {f"no caption with a word, {CAPTIONS}/msrvtt_caption_test3k": 1}


def test_msrvtt_as_the_reference_trains_it(msrvtt):
    assert msrvtt.run("msrvtt", "--train-on", "train+val", "--shuffles", "1")[0] == 0
    rows = msrvtt.rows(f"{CAPTIONS}/msrvtt_caption_train_1.tsv", "video_caption")
    assert {r["video"] for r in rows} == {"video0.mp4", "video1.mp4"}
    assert not (msrvtt.out / CAPTIONS / "msrvtt_caption_val.tsv").exists()
    assert f"{CAPTIONS}/msrvtt_caption_val: no rows, not written" in msrvtt.report("msrvtt")["notes"]


def qa(*entries: tuple[int, int, str, str]) -> list[dict]:
    return [{"id": n, "video_id": v, "question": q, "answer": a, "category_id": 1} for n, v, q, a in entries]


def test_msrvtt_qa(place):
    place.write(
        "train_qa.json", qa((0, 0, "what\tis it?", "car"), (1, 0, "who?", "man"), (2, 0, "rare?", "gnu"))
    )
    place.write("val_qa.json", qa((3, 1, "who?", "man"), (4, 1, "and?", "car")))
    place.write("test_qa.json", qa((5, 2, "rare?", "okapi"), (6, 2, "?", "man")))
    assert place.run("msrvtt_qa", "--text", "original", "--max-answers", "2")[0] == 0
    assert read_answer_list(place.out / QA / "msrvtt_trainval_4k_ans2label.pkl") == ("car", "man")
    train = place.rows(f"{QA}/msrvtt_qa_4k_train_1.tsv", "video_vqa")
    assert {(r["id"], r["video"], r["answer"]) for r in train} == {
        ("0", "video0.mp4", "1.0|!+car"),
        ("1", "video0.mp4", "1.0|!+man"),
    }
    assert place.dropped("msrvtt_qa") == {f"no answer of the closed list, {QA}/msrvtt_qa_4k_train": 1}
    test = open_table(str(place.out / QA / "msrvtt_qa_4k_test.tsv"), layout="video_vqa", header=False)
    references = [get_spec("vqa", "video").reference(row, SpecOptions()) for row in test]
    assert references == [{"okapi": 1.0}, {"man": 1.0}], "answers outside the list stay in the test set"
    assert len(place.rows(f"{QA}/msrvtt_qa_4k_val.tsv", "video_vqa")) == 2


def test_msvd_captions_and_questions(place):
    names = ["-4wsuPCjDBc_5_15", "mv89psg6zh4_33_46", "é1_0_3"]
    place.write("youtube_mapping.txt", "".join(f"{name} vid{n}\n" for n, name in enumerate(names, 1)))
    lines = [
        f"{names[0]} a squirrel is eating",
        f"{names[0]} ein\tHörnchen",
        f"{names[1]} a dog",
        f"{names[2]} b",
    ]
    place.write("AllVideoDescriptions.txt", "# the corpus\n\n" + "\n".join(lines) + "\n")
    arguments = ("--train-videos", "1", "--val-videos", "1")
    (place.root / "msvd").mkdir()
    for name in names[:2]:
        (place.root / "msvd" / f"{name}.mp4").write_bytes(b"x")  # converted from avi
    assert place.run("msvd", *arguments, "--media-root", str(place.root / "msvd"), "--check-media")[0] == 0
    train = place.rows(f"{CAPTIONS}/msvd_caption_train_1.tsv", "video_caption")
    assert {(r["video"], r["caption"]) for r in train} == {
        (f"msvd/{names[0]}.mp4", "a squirrel is eating"),
        (f"msvd/{names[0]}.mp4", "ein Hörnchen"),
    }
    assert [r["id"] for r in place.rows(f"{CAPTIONS}/msvd_caption_val.tsv", "video_caption")] == ["vid2"]
    assert place.report("msvd")["missing_media"]["first"] == {f"{names[2]}.avi": 1}

    place.write("train_qa.json", qa((1, 1, "what?", "squirrel")))
    place.write("test_qa.json", qa((2, 3, "what?", "dog")))
    assert place.run("msvd_qa", "--media-name", "msvd/{youtube}.mp4")[0] == 0
    (row,) = place.rows(f"{QA}/msvd_qa_1k_test.tsv", "video_vqa")
    assert row["video"] == f"msvd/{names[2]}.mp4"
    assert read_answer_list(place.out / QA / "msvd_trainval_1k_ans2label.json") == ("squirrel",)
    assert "not given: val_qa.json" in place.report("msvd_qa")["notes"]


def test_activitynet_holds_out_a_validation_split_by_video(place):
    def video(n):
        return {
            "duration": 30.0,
            "timestamps": [[0, 10.5], [9.5, 30]],
            "sentences": [f" One {n}.", "Two\nü."],
        }

    place.write("train.json", {f"v_t{n}": video(n) for n in range(6)} | {"v_shared": video(9)})
    place.write("val_2.json", {"v_a": video(0), "v_shared": video(1)})
    arguments = ("--hold-out", "2", "--media-name", "activitynet/{id}_{segment}.mp4")
    assert place.run("activitynet", *arguments)[0] == 0
    videos = {}
    for split, name in (("train", "train_1"), ("val", "val"), ("test", "val2")):
        rows = place.rows(f"{CAPTIONS}/activitynet_caption_{name}.tsv", "video_caption")
        videos[split] = {row["video"].rpartition("_")[0] for row in rows}
        assert all(row["video"].startswith("activitynet/v_") for row in rows)
    assert len(videos["train"]) == 4 and len(videos["val"]) == 2 and len(videos["test"]) == 2
    assert not videos["train"] & videos["val"] and not (videos["train"] | videos["val"]) & videos["test"]
    assert place.dropped("activitynet") == {"medium is also in an evaluation split": 2}
    assert any("2 training media are held out" in note for note in place.report("activitynet")["notes"])
    segments = [
        json.loads(line)
        for line in (place.out / "video_data/activitynet_segments.jsonl").read_text().splitlines()
    ]
    assert len(segments) == 16
    assert segments[1] == {"source": "v_t0", "start": 9.5, "end": 30.0, "target": "activitynet/v_t0_1.mp4"}


def test_audiocaps(place):
    header = "audiocap_id,youtube_id,start_time,caption\n"
    place.write("train.csv", header + '1,-abc,30,"A dog, barking\nloudly"\n2,shared,0,Rain\n2,other,0,Wind\n')
    place.write("val.csv", header + "3,val,10,Música\n4,val,10,Music plays\n")
    place.write("test.csv", header + "5,shared,5,Thunder\n6,shared,5,A storm\n")
    assert place.run("audiocaps", "--text", "original")[0] == 0
    base = "audio_data/caption_data/audiocaps"
    (train,) = [r for r in place.rows(f"{base}_train_1.tsv", "audio_caption") if r["id"] == "1"]
    assert (train["audio"], train["caption"]) == ("-abc_30.wav", "A dog, barking loudly")
    (val,) = place.rows(f"{base}_val.tsv", "audio_caption")
    assert val["caption"] == "Música&&Music plays"
    (test,) = place.rows(f"{base}_test.tsv", "audio_caption")
    assert test["caption"] == "Thunder&&A storm"
    assert place.dropped("audiocaps") == {"medium is also in an evaluation split": 1}
    (part,) = [r for r in place.rows("pretrain_ours/parts/audiocaps_audio.tsv", "pretrain") if "1" in r["id"]]
    assert part["type"] == "audio_caption"


CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"


@pytest.mark.parametrize("version", [1, 2])
def test_clotho(place, version):
    def rows(*names):
        return CLOTHO + "".join(f'"{n}","A, {n}",b,c,d,"e\tü"\n' for n in names)

    place.write("clotho_captions_development.csv", rows("a b.wav", "ñ.wav", "c,d.wav"))
    place.write("clotho_captions_evaluation.csv", rows("x.wav"))
    if version == 2:
        place.write("clotho_captions_validation.csv", rows("v.wav"))
    assert (
        place.run(
            "clotho", "--text", "original", "--hold-out", "1", "--media-name", "clotho/{folder}/{file}"
        )[0]
        == 0
    )
    base = "audio_data/caption_data/clotho"
    train = place.rows(f"{base}_development_1.tsv", "audio_caption")
    (val,) = place.rows(f"{base}_validation.tsv", "audio_caption")
    (test,) = place.rows(f"{base}_evaluation.tsv", "audio_caption")
    assert len(train) == 5 * (3 if version == 2 else 2)
    assert {r["audio"] for r in train}.isdisjoint({val["audio"], test["audio"]})
    if version == 2:
        assert val["audio"] == "clotho/validation/v.wav"
    else:
        assert val["audio"].startswith("clotho/development/")
    assert test["caption"] == "A, x.wav&&b&&c&&d&&e ü"
    held = any("held out" in note for note in place.report("clotho")["notes"])
    assert held == (version == 1)
