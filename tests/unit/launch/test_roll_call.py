"""Processes say for whom they wait, and stop with the number of the one that does not come."""

from __future__ import annotations

import socket

import pytest

from unival.errors import ConfigError
from unival.launch import preflight


@pytest.fixture
def left_over(monkeypatch):
    """Variables of a cluster job that an interactive shell has kept."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def test_the_first_rank_names_the_one_that_does_not_come(left_over, monkeypatch, capfd):
    monkeypatch.setattr(preflight, "_SILENT", 0.2)
    with pytest.raises(ConfigError, match=r"rank\(s\) 1 of 2 did not come within 1 s"):
        preflight.roll_call(preflight.Presence.here(0, "cpu", {}), 2, 1.0)
    place = f"127.0.0.1:{left_over['MASTER_PORT']}"
    assert capfd.readouterr().err.count(f"waiting for rank(s) 1 of 2 at {place}, up to 1 s") == 1


def test_a_rank_without_the_first_says_so(left_over, monkeypatch, capfd):
    monkeypatch.setattr(preflight, "_SILENT", 0.2)
    with pytest.raises(ConfigError, match="rank 0 did not come"):
        preflight.roll_call(preflight.Presence.here(1, "cpu", {}), 2, 1.0)
    assert "rank 1 of 2 waits for rank 0 at 127.0.0.1" in capfd.readouterr().err
