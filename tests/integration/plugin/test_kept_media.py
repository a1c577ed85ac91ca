"""Decoded media on disk give the run that files give, also to a later run and to other workers."""

from __future__ import annotations

import pytest

from tests.integration.plugin.test_initial_weights import data
from unival.media.kept import ENDING

ARGUMENTS = ("--max-epoch=2", "--best-checkpoint-metric=cider", "--use-dataaug")


def test_the_run_is_the_same_and_decodes_each_medium_once(train, tables, tmp_path):
    folder = tmp_path / "kept"
    plain = train("caption", data(tables), *ARGUMENTS, name="plain").ok()
    keep = (*ARGUMENTS, f"--keep-media={folder}", "--num-workers=2")
    first = train("caption", data(tables), *keep, name="first").ok()
    images = {p.name for t in data(tables) for p in (t.parent.parent / "images").glob("*")}
    files = {path: path.stat().st_mtime_ns for path in folder.glob(f"*/*{ENDING}")}
    assert 0 < len(files) <= len(images)
    later = train("caption", data(tables), *keep, name="later").ok()
    assert {path: path.stat().st_mtime_ns for path in folder.glob(f"*/*{ENDING}")} == files
    for run in (first, later):
        assert run.losses() == plain.losses()
        assert run.scores()[-1]["cider"] == pytest.approx(plain.scores()[-1]["cider"])
