"""The catalogue and ``unival download``, against a server that stalls, cuts, redirects, lies and changes its files."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.file_server import FileServer
from unival.checkpoint.archives import unpack
from unival.checkpoint.catalogue import PublishedFile, found_at, local_path, read_entries
from unival.checkpoint.download import ATTEMPTS, Checks, TransferError, download, fetch
from unival.cli import main
from unival.core.paths import recipes
from unival.errors import CheckpointError, ConfigError
from unival.evaluate.needs import needs_of

ROOT = Path(__file__).resolve().parents[3]
CONTENT = np.random.default_rng(0).bytes(3_000_000)
OTHER = np.random.default_rng(1).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
RIGHT = Checks(len(CONTENT), DIGEST)
QUICK = 0.3  # seconds without a byte


@pytest.fixture(scope="module")
def running() -> Iterator[FileServer]:
    with FileServer().running() as server:
        yield server


@pytest.fixture
def server(running: FileServer) -> FileServer:
    running.files, running.versions = {"/file": CONTENT, "/other": OTHER}, {}
    running.asked.clear()
    return running


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA", "WEIGHTS", "OUT"):
        monkeypatch.setenv(f"UNIVAL_{name}", str(tmp_path / name.lower()))
    return tmp_path


def published(*urls: str, **given: object) -> PublishedFile:
    given = {"bytes": len(CONTENT), "sha256": DIGEST, **given}
    return PublishedFile("${UNIVAL_WEIGHTS}/c.pt", urls, **given)  # type: ignore[arg-type]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    "how",
    [
        "",
        "?cut=900000",
        "?stall=900000&once=1",
        "?whole=1&cut=2000000&once=1",
        "?cut=10&once=1",
        "?shift=7&cut=900000",
    ],
)
def test_a_file_arrives_right_whatever_happens(server, roots, how):
    """From one address: cut and stalled transfers go on, parts that begin elsewhere are fetched anew."""
    file = published(f"{server.url}/file{how}")
    if how.startswith(
        "?shift"
    ):  # every second attempt begins anew and gets no further: the other address helps
        file = published(f"{server.url}/file{how}", f"{server.url}/file")
    done = fetch(file, timeout=QUICK)
    assert done.path.read_bytes() == CONTENT and done.checked and left(roots / "weights") == ["c.pt"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("/file?absent=404", "404"),
        ("/file?absent=503", "503"),
        ("/gone", "404"),
        ("/file?says=2999999", "offers 2999999 bytes, the published file has 3000000"),
        ("/file?says=9999999", "offers 9999999 bytes"),
        ("/file?page=1", "a web page"),
        ("/other", "SHA-256"),
        ("/file?redirect=/other", "SHA-256"),
        ("/file?redirect=file:///etc/hostname", "file:///etc/hostname' is not allowed"),
        ("/file?redirect=ftp://127.0.0.1/file", "not followed"),
        ("/file?redirect=/file?redirect=/file", ""),
        ("/file?stall=0", "sent nothing for 0.3 seconds"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_and_the_next_is_tried(server, roots, how, said):
    bad = f"{server.url}{how}"
    if said:
        with pytest.raises(CheckpointError) as error:
            fetch(published(bad), timeout=QUICK)
        assert (
            said in str(error.value)
            and bad in str(error.value)
            and str(roots / "weights/c.pt") in str(error.value)
        )
        assert "c.pt" not in left(roots / "weights")
    done = fetch(published(bad, f"{server.url}/file"), timeout=QUICK)
    assert done.path.read_bytes() == CONTENT and left(roots / "weights") == ["c.pt"]


def test_lengths_that_lie_where_nothing_is_known(server, tmp_path):
    """A file of unknown length and hash: what is announced must arrive."""
    with pytest.raises(TransferError, match=r"cut after 3000000 bytes.*goes on there"):
        download(f"{server.url}/file?says=3000009", tmp_path / "c.pt")
    assert left(tmp_path) == ["c.pt.part", "c.pt.part.from"]
    assert download(f"{server.url}/file?says=3000009", tmp_path / "c.pt").resumed_at == 3_000_000
    assert (tmp_path / "c.pt").read_bytes() == CONTENT
    short = download(f"{server.url}/file?says=1000", tmp_path / "d.pt")
    assert not short.checked and len(short.path.read_bytes()) == 1000
    with pytest.raises(TransferError, match="expected 1234abcd"):
        download(f"{server.url}/file", tmp_path / "e.pt", Checks(sha256="1234abcd"))
    assert download(f"{server.url}/file", tmp_path / "e.pt", Checks(sha256=DIGEST[:8])).checked
    assert download(
        f"{server.url}/file", tmp_path / "f.pt", Checks(md5=hashlib.md5(CONTENT).hexdigest())
    ).checked
    with pytest.raises(TransferError, match="MD5"):
        download(f"{server.url}/other", tmp_path / "g.pt", Checks(md5=hashlib.md5(CONTENT).hexdigest()))
    assert "e.pt.part" not in left(tmp_path) and "g.pt" not in left(tmp_path)


def test_a_beginning_of_another_file_is_not_continued(server, tmp_path):
    """The server's file changed, another address begins otherwise, or the beginning is of something else."""
    server.versions["/file"] = '"one"'
    with pytest.raises(TransferError, match="cut"):
        download(f"{server.url}/file?cut=1000000", tmp_path / "c.pt")
    server.files["/file"], server.versions["/file"] = OTHER, '"two"'
    done = download(f"{server.url}/file", tmp_path / "c.pt")
    assert done.resumed_at == 0 and done.path.read_bytes() == OTHER
    server.files["/file"] = CONTENT
    with pytest.raises(TransferError, match="cut"):
        download(f"{server.url}/other?cut=1000000", tmp_path / "d.pt")
    assert download(f"{server.url}/file", tmp_path / "d.pt").path.read_bytes() == CONTENT
    (tmp_path / "c.pt.part").write_bytes(OTHER[:1_000_000])  # of unknown origin, and the hash is known
    done = fetch(published(f"{server.url}/file"), place=tmp_path / "c.pt", timeout=QUICK)
    assert done.path.read_bytes() == CONTENT and done.resumed_at == 0
    with pytest.raises(TransferError, match="not an http"):
        download("file:///etc/hostname", tmp_path / "h")
    assert ATTEMPTS > 1


def test_a_killed_download_goes_on(server, roots):
    """SIGKILL in the middle; the same command continues, and a second one beside it is refused."""
    entries = roots / "list.yaml"
    entries.write_text(
        "entries:\n  thing:\n    description: a file\n    files:\n"
        f"      - place: ${{UNIVAL_WEIGHTS}}/c.pt\n        urls: ['{server.url}/file?stall=1500000&once=1']\n"
        f"        bytes: {len(CONTENT)}\n        sha256: {DIGEST}\n"
    )
    command = [sys.executable, "-m", "unival", "download", "thing", "--entries", str(entries)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        command, env=environment, cwd=roots, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    part = roots / "weights" / "c.pt.part"
    deadline = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 1_500_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(TransferError, match="written by another process"):
        download(f"{server.url}/file", roots / "weights" / "c.pt", RIGHT)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    assert left(roots / "weights") == ["c.pt.part", "c.pt.part.from"]
    assert main(["download", "thing", "--entries", str(entries)]) == 0
    assert (roots / "weights" / "c.pt").read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=1500000-", "what had arrived was not fetched again"


def test_archives(server, roots, tmp_path, capsys):
    """Unpacked below their folder with or without a folder of their own; whatever leads elsewhere is refused."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("data/a.tsv", "data/sub/b.tsv", "__MACOSX/data/._a.tsv", "data/.DS_Store"):
            archive.writestr(name, f"text of {name}")
    server.files["/data.zip"] = packed.getvalue()
    listed = roots / "list.yaml"
    listed.write_text(
        "entries:\n  tables:\n    description: tables\n    files:\n      - place: ${UNIVAL_DATA}/data.zip\n"
        f"        urls: ['{server.url}/data.zip']\n        unpack: ${{UNIVAL_DATA}}/ofa/x\n"
        "        gives: [a.tsv, sub/b.tsv, c.tsv]\n"
    )
    (roots / "data/ofa/x").mkdir(parents=True)
    (roots / "data/ofa/x/a.tsv").write_text("mine")
    assert main(["download", "tables", "--entries", str(listed)]) == 0
    said = capsys.readouterr().out
    assert "unpacked 1 files" in said and "not in the archive" in said and "x/c.tsv" in said
    assert (roots / "data/ofa/x/sub/b.tsv").read_text() == "text of data/sub/b.tsv"
    assert (roots / "data/ofa/x/a.tsv").read_text() == "mine" and left(roots / "data") == ["ofa"]
    (roots / "recipe.yaml").write_text(
        "data: {train: '${UNIVAL_DATA}/ofa/x/c.tsv', valid: '${UNIVAL_DATA}/ofa/x/sub/b.tsv'}\n"
    )
    asked = len(server.asked)
    assert main(["download", "--for", str(roots / "recipe.yaml"), "--entries", str(listed)]) == 0
    said = capsys.readouterr().out
    assert "x/c.tsv: not in the archive" in said and "x/sub/b.tsv: there already" in said
    assert len(server.asked) == asked, (
        "an archive without a name that was expected is not fetched again and again"
    )

    def tar(name: str, *members: tuple[str, str, bytes], mode: str = "w:gz") -> Path:
        with tarfile.open(tmp_path / name, mode) as archive:
            for title, kind, content in members:
                info = tarfile.TarInfo(title)
                info.type, info.size = kind.encode(), len(content)
                info.linkname = "/etc/passwd" if kind != "0" else ""
                archive.addfile(info, io.BytesIO(content))
        return tmp_path / name

    flat = tar("flat.tar", ("model.pt", "0", b"x"), ("dict.txt", "0", b"y"), mode="w")
    assert len(unpack(flat, tmp_path / "flat")) == 2
    nested = tar("bart.tar.gz", ("bart.base/model.pt", "0", b"x"))
    assert unpack(nested, tmp_path / "bart", ["model.pt"]) == [tmp_path / "bart/model.pt"]
    twice = tar("t.tar.gz", ("a", "0", b"1"), ("a", "0", b"2"))
    for archive, match in (
        (tar("up.tar.gz", ("good", "0", b"x"), ("../up", "0", b"x")), "leads out of the folder"),
        (tar("root.tar.gz", ("/tmp/up", "0", b"x")), "leads out of the folder"),
        (tar("drive.tar.gz", ("C:\\up", "0", b"x")), "leads out of the folder"),
        (tar("link.tar.gz", ("link", "2", b"")), "link or a device"),
        (tar("hard.tar.gz", ("link", "1", b"")), "link or a device"),
        (tar("pipe.tar.gz", ("pipe", "6", b"")), "link or a device"),
        (twice, "damaged"),
        (tar("none.tar.gz"), "is empty"),
    ):
        with pytest.raises(CheckpointError, match=match):
            unpack(archive, tmp_path / "never")
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(tar("long.tar.gz", ("a", "0", OTHER[:9999])).read_bytes()[:5000])
    for path in (broken, tmp_path / "list.yaml"):
        with pytest.raises(CheckpointError, match=r"damaged|neither a zip"):
            unpack(path, tmp_path / "never")
    assert not (tmp_path / "never").exists() and not [n for n in left(tmp_path) if n.startswith(".")]


def test_every_entry_is_complete():
    entries = read_entries()
    assert len(entries) > 90
    for name, entry in entries.items():
        assert entry.make or entry.files, name
        for file in entry.files:
            assert file.urls or file.pages, f"{name}: {file.place}"
            assert all(url.startswith("https://") for url in file.urls)
            assert file.source, f"{name}: {file.place} does not say where its facts are from"
        if entry.recipe:
            assert entry.recipe_path().is_file() and entry.results
    assert {e.family for e in entries.values()} >= {
        "UnIVAL",
        "OFA",
        "timm",
        "PANNs",
        "CLIP",
        "tables",
        "fairseq",
    }
    hashes = [file for entry in entries.values() for file in entry.files if file.sha256]
    assert sum(len(file.sha256) == 64 for file in hashes) > 15
    from unival.vocabulary.vocabulary import _RELEASED_SHA256

    assert {file.path.name: file.sha256 for file in entries["bpe"].files} == _RELEASED_SHA256
    assert recipes() == ROOT / "configs"


def test_no_published_score_lacks_an_address():
    """Every file that ``unival reproduce`` reads: an address, or media that their corpora publish."""
    entries = read_entries()
    for name, entry in entries.items():
        for target in entry.results if not entry.make else ():
            needs = needs_of(entries, f"reproduce:{name}:{target.split}")
            assert all(what.startswith("media") for _, what in needs.unpublished), (name, needs.unpublished)
            assert any(file.place == entry.checkpoint for _, file in needs.files), name
            assert {file.path.name for _, file in needs.files} >= {"dict.txt", "encoder.json", "vocab.bpe"}


def test_a_dry_run_prints_every_file(roots, capsys):
    assert main(["download", "--for", "reproduce:unival_caption_stage_1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in (
        f"{roots}/weights/unival_caption_stage_1/checkpoint_best_test.pt", "3,074,146,663 bytes", "a0d7dad1202415a3",
        "https://data.isir.upmc.fr/unival/models/unival_caption_stage_1/checkpoint_best_test.pt",
        "https://huggingface.co/spaces/mshukor/UnIVAL/resolve/main/checkpoints/unival_caption_stage_1/",
        f"{roots}/data/ofa/caption_data.zip -> {roots}/data/ofa/caption_data", "caption_test.tsv",
        "probable, not stated",
        f"{roots}/weights/bpe/dict.txt", "603,290 bytes", "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/vocab.bpe",
    ):  # fmt: skip
        assert part in said, part
    assert "nocaps" not in said and left(roots) == []
    for recipe, parts in (
        (
            "pretrain/stage1",
            ("cc12m.tsv", "bart.base/model.pt", "resnet101_a1h", "negative_sample/object.txt"),
        ),
        ("finetune/caption_coco", ("caption_data.zip", "shuffled copies", "unival_s2_hs/checkpoint1.pt")),
        ("pretrain/stage2", ("by hand: https://drive.google.com", "video_mini_webvid2mccapqa")),
        ("merge/ties", ("unival_s2_hs/checkpoint1.pt",)),
        ("evaluate/image_gen_coco", ("vqgan/last.ckpt", "gt_stat.npz", "clip/ViT-B-16.pt")),
    ):
        assert main(["download", "--for", str(ROOT / f"configs/{recipe}.yaml"), "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert all(part in said for part in parts), (recipe, said)
    found = found_at(read_entries(), roots / "weights/bart.base/model.pt")
    assert [file.unpack is None for _, file in found] == [True, False], "a file, or an archive that gives it"


def test_names_and_lists(server, roots, capsys):
    with pytest.raises(CheckpointError, match="fetch it with 'unival download ofa-tiny'"):
        local_path("ofa-tiny")
    with pytest.raises(ConfigError, match=r"neither a file.*Did you mean 'ofa-tiny'"):
        local_path("ofa-tyni")
    folder = roots / "weights/ofa-tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="unival download ofa-tiny"):
        local_path("ofa-tiny")  # a part of it is there
    for name in ("vocab.json", "merges.txt", "pytorch_model.bin"):
        (folder / name).write_text("")
    assert local_path("ofa-tiny") == folder and local_path(str(folder)) == folder
    assert main(["download", "--list"]) == 0
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) == len(read_entries())
    assert "cider 137" in listed and "3,074.1 MB" in listed and "by hand" in listed
    assert main(["download", "standin"]) == 2
    assert "make it with" in capsys.readouterr().err
    for text, match in (
        (
            "entries: {x: {description: d, files: [{place: '${UNIVAL_DATA}/x', urls: ['file:///x']}]}}",
            "not an http",
        ),
        (
            "entries: {x: {description: d, files: [{place: '/etc/x', urls: ['http://h/x']}]}}",
            "does not start from",
        ),
        ("entries: {x: {description: d, files: [{place: '${UNIVAL_DATA}/x', sha256: abc}]}}", "8 to 64"),
        ("entries: {x: {description: d, fles: []}}", "fles.*files"),
        (
            "entries: {x: {description: d, files: [{place: '${UNIVAL_DATA}/x', source: [y]}]}}",
            "not in the list's sources",
        ),
        ("entries: {x: {results: {}}}", "description"),
        ("[]", "no 'entries'"),
    ):
        (roots / "l.yaml").write_text(text)
        with pytest.raises(ConfigError, match=match):
            read_entries(roots / "l.yaml")


def test_alternatives_and_files_that_are_there(server, roots, capsys):
    """The second place of a thing is fetched when the first has nothing; a wrong file that is there is said."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("bart.base/model.pt", CONTENT)
    server.files["/bart.zip"] = packed.getvalue()
    (roots / "list.yaml").write_text(
        "entries:\n  bart:\n    description: two ways\n    files:\n"
        f"      - {{place: '${{UNIVAL_WEIGHTS}}/b/model.pt', urls: ['{server.url}/gone']}}\n"
        f"      - {{place: '${{UNIVAL_WEIGHTS}}/b.zip', urls: ['{server.url}/bart.zip'], "
        "unpack: '${UNIVAL_WEIGHTS}/b', gives: [model.pt]}\n"
        "  one:\n    description: one file\n    needs: [bart]\n    files:\n"
        f"      - {{place: '${{UNIVAL_WEIGHTS}}/c.pt', urls: ['{server.url}/file'], bytes: 3000000, "
        f"sha256: {DIGEST}}}\n"
        "  other:\n    description: nowhere\n"
        f"    files: [{{place: '${{UNIVAL_WEIGHTS}}/d', urls: ['{server.url}/gone']}}]\n"
    )
    words = ["download", "one", "other", "--entries", str(roots / "list.yaml")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "not everything" in error and "/gone: the server answered 404" in error
    assert (roots / "weights/b/model.pt").read_bytes() == CONTENT, "what follows a failure is fetched"
    asked = len(server.asked)
    assert main([words[0], "one", *words[3:]]) == 0
    assert "there already, as published" in capsys.readouterr().out and len(server.asked) == asked
    (roots / "weights/c.pt").write_bytes(OTHER)
    assert main([words[0], "one", *words[3:]]) == 2
    assert "remove it to fetch it again" in capsys.readouterr().err


def test_reproduce_fetches_what_it_needs(server, roots, capsys):
    """Everything is fetched and checked before the evaluation begins; here it then finds that the model is none."""
    (roots / "r").mkdir()
    (roots / "r/recipe.yaml").write_text(
        "task: caption\ndata: {valid: '${UNIVAL_DATA}/t.tsv'}\ninputs: {bpe_dir: '${UNIVAL_WEIGHTS}/bpe'}\n"
    )
    lines = ["entries:", "  m:", "    description: model", "    checkpoint: ${UNIVAL_WEIGHTS}/m.pt"]
    lines += [
        "    recipe: recipe.yaml",
        "    results: {test: {metric: cider, expected: 1, tolerance: 1, source: x}}",
    ]
    lines += ["    files:"]
    for place in (
        "WEIGHTS}/m.pt",
        "DATA}/t.tsv",
        "WEIGHTS}/bpe/dict.txt",
        "WEIGHTS}/bpe/encoder.json",
        "WEIGHTS}/bpe/vocab.bpe",
    ):
        lines.append(f"      - {{place: '${{UNIVAL_{place}', urls: ['{server.url}/file']}}")
    (roots / "r/list.yaml").write_text("\n".join(lines) + "\n")
    words = ["reproduce", "m", "--list", str(roots / "r/list.yaml")]
    assert main(words) == 2
    assert "--fetch" in capsys.readouterr().err and not server.asked
    assert main([*words, "--fetch"]) == 2
    assert len(server.asked) == 5 and (roots / "data/t.tsv").read_bytes() == CONTENT
    assert f"'{roots}/weights/m.pt'" in capsys.readouterr().err
