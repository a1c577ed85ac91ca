"""An evaluation asked for from Python: the typed request, and ranks of a launcher that do not come."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from unival.errors import ConfigError
from unival.evaluate import processes
from unival.evaluate.request import Request
from unival.evaluate.runner import evaluate


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": -1}, "processes must be at least 1, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
        ({"num_workers": -2}, "num_workers must be at least 0, got -2"),
        ({"batch_size": "x"}, "option batch_size 'x': expected a whole number"),
        ({"batch_size": True}, "option batch_size True: expected a whole number"),
        ({"zero_shot": "no"}, "option zero_shot 'no': expected true or false"),
        (
            {"mode": "tire"},
            "mode 'tire' is not one of open, trie, rank, beamsearch, allcand. Did you mean 'trie'?",
        ),
        ({"eval_args": "{5}"}, "eval_args: '{5}' is a set, expected a JSON object"),
        ({"batchsize": 3}, "unknown option 'batchsize' of an evaluation. Did you mean 'batch_size'?"),
    ],
)
def test_a_request_says_what_it_cannot_mean(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Request.named("checkpoint", **options)
    assert str(error.value) == said


def test_names_of_both_kinds_make_a_request() -> None:
    request = Request.named(
        "checkpoint", "t.tsv", metrics="cider,bleu", answers="red,blue", eval_args='{"beam": 2}', seed=3
    )
    assert request.metrics == ("cider", "bleu") and request.eval_args == {"beam": 2}
    assert request.options == {"answers": ("red", "blue"), "seed": 3}


def test_python_asks_as_the_command_line_does(checkpoint: Path, world: Path, tmp_path: Path) -> None:
    from unival.cli import main

    table, decoding = str(world / "tables/caption_test.tsv"), {"beam": 1, "max_len_b": 6}
    request = Request(
        str(checkpoint), table, image_dir=str(world), out=str(tmp_path / "python"), limit=4, batch_size=4,
        eval_args=decoding, device="cpu",
    )  # fmt: skip
    result = evaluate(request)
    words = ["--limit", "4", "--batch-size", "4", "--eval-args", json.dumps(decoding), "--device", "cpu"]
    out = tmp_path / "line"
    assert (
        main(["evaluate", str(checkpoint), table, "--image-dir", str(world), "--out", str(out), *words]) == 0
    )
    written = json.loads((out / "result.json").read_text())
    assert result is not None and result["metrics"] == written["metrics"] and result["n"] == 4
    assert (out / "predictions.jsonl").read_bytes() == (tmp_path / "python/predictions.jsonl").read_bytes()


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_an_absent_rank_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launched(monkeypatch, RANK="0", WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with pytest.raises(ConfigError, match=rf"ranks 1, 2 of 3 did not come to 127.0.0.1:{port} within 0.4 s"):
        evaluate(Request("no such checkpoint", preflight_timeout=0.4))
    assert f"waiting for ranks 1, 2 of 3 at 127.0.0.1:{port}" in capsys.readouterr().err


def test_rank_0_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    with pytest.raises(ConfigError, match=r"rank 1 of 2 cannot reach rank 0 at 127\.0\.0\.1:1"):
        evaluate(Request("no such checkpoint", preflight_timeout=0.4))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT is not"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is not"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x', expected a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2 do not fit"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "b"}, "MASTER_PORT is 'b'"),
    ],
)
def test_what_a_launcher_left_over(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    launched(monkeypatch, **variables)
    with pytest.raises(ConfigError, match=said):
        evaluate(Request("no such checkpoint", preflight_timeout=0.4))


def test_empty_variables_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK="", WORLD_SIZE="")
    assert processes.rank_and_size() == (0, 1)


def test_a_table_may_follow_the_options() -> None:
    from unival.cli.evaluate import parse

    for words in (
        ["c", "t.tsv", "--recipe", "r"],
        ["c", "--recipe", "r", "t.tsv"],
        ["--recipe", "r", "c", "t.tsv"],
    ):
        request = parse(words)
        assert (request.checkpoint, request.table, request.recipe) == ("c", "t.tsv", "r")
    assert parse(["c", "--recipe", "r"]).table is None
