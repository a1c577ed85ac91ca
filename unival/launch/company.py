"""Every rank hears of every other one that is gone: one line that names it, within a minute, instead of a hang.

A cut link or a host without power sends nothing, and a collective waits for hours. So each rank keeps a connection to
rank 0 and says every few seconds that it lives; rank 0 tells all who is missing. A connection that ends without a
farewell is a process that has ended: the others wait a little for what its own launcher does, and end.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from unival.launch.stopping import REQUEST
from unival.launch.watchdog import HUNG

_BEAT = 5.0  # seconds between two signs of life
_SILENCE = 45.0  # seconds without one
_GRACE = 10.0  # seconds for launchers to end ranks whose neighbour has ended
_ARRIVAL = 30.0  # seconds for all to connect
_ENDED = "it has ended; look at its output"


class Company:
    """The other ranks of this process's run, once it has joined them."""

    def __init__(self) -> None:
        self._places: Sequence[str] = ()
        self._rank = 0
        self._links: dict[int, socket.socket] = {}
        self._heard: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._lock = threading.Lock()
        self._well = False
        self._lost = ""

    def join(self, store: Any, rank: int, places: Sequence[str] = ()) -> None:
        """Connect all ranks; ``store``: keys that they share, ``places`` (on rank 0): "rank 1 (host, pid 7)" of each.

        What cannot be connected is said in one line and not watched.
        """
        self._places, self._rank = places, rank
        try:
            connected = self._receive(store) if rank == 0 else self._call(store)
        except (OSError, RuntimeError) as error:
            self.leave()
            _say(f"rank {rank} watches no other rank: {str(error).splitlines()[0]}")
            return
        if connected:
            threading.Thread(target=self._keep, daemon=True, name="company").start()

    def leave(self) -> None:
        """Say farewell: this process ends as it should."""
        with self._lock:
            self._well = True
            for link in self._links.values():
                with contextlib.suppress(OSError):
                    link.sendall(b"bye\n")
                link.close()
            self._links.clear()

    def missing(self) -> str:
        """Return the line about a rank that is gone, for an error that it may have caused; waits a second for it."""
        deadline = time.monotonic() + 1.0
        while self._places and time.monotonic() < deadline and not (self._lost or self._ended):
            time.sleep(0.05)
        if self._lost or not self._ended:
            return self._lost
        return self._line(min(self._ended, key=self._ended.__getitem__), _ENDED)

    def _receive(self, store: Any) -> bool:
        """Rank 0: take the connections of all others."""
        token = os.urandom(16).hex()
        deadline = time.monotonic() + _ARRIVAL
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        with socket.create_server(("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as opened:
            store.set("company", json.dumps([opened.getsockname()[1], token, list(self._places)]))
            while len(self._links) < len(self._places) - 1:
                opened.settimeout(max(0.01, deadline - time.monotonic()))
                link, _ = opened.accept()
                link.settimeout(5.0)
                with contextlib.suppress(OSError, ValueError):
                    hello = b""
                    while not hello.endswith(b"\n") and len(hello) < 64:
                        hello += (
                            link.recv(1) or b"\n"
                        )  # no more than this line: a sign of life may follow at once
                    given, number = hello.decode("ascii", "replace").split()
                    if given == token and 0 < int(number) < len(self._places):
                        self._add(int(number), link)
                        continue
                link.close()
        return True

    def _call(self, store: Any) -> bool:
        """Another rank: connect to rank 0."""
        port, token, self._places = json.loads(store.get("company"))
        link = socket.create_connection((os.environ["MASTER_ADDR"], port), timeout=_ARRIVAL)
        link.sendall(f"{token} {self._rank}\n".encode())
        self._add(0, link)
        return True

    def _add(self, rank: int, link: socket.socket) -> None:
        link.setblocking(False)
        self._links[rank], self._heard[rank] = link, time.monotonic()

    def _keep(self) -> None:
        """Give and take signs of life until nobody is left."""
        with selectors.DefaultSelector() as selector:
            for rank, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, rank)
            beat = 0.0
            while not self._well and (self._links or self._ended):
                if time.monotonic() >= beat:
                    beat = time.monotonic() + _BEAT
                    self._tell(b".\n")
                for key, _ in selector.select(1.0):
                    if not self._hear(key.data):
                        with contextlib.suppress(KeyError, ValueError):
                            selector.unregister(key.fileobj)
                self._look()

    def _tell(self, message: bytes) -> None:
        with self._lock:
            for link in self._links.values():
                with contextlib.suppress(OSError):
                    link.send(message)

    def _hear(self, rank: int) -> bool:
        """Read what a rank says; False when there is nothing more to come."""
        with self._lock:
            link = self._links.get(rank)
            if link is None:
                return False
            try:
                said = link.recv(4096)
            except BlockingIOError:
                return True
            except OSError:
                said = b""
            self._heard[rank] = time.monotonic()
            if said and not said.endswith(b"bye\n"):
                for line in said.decode("utf-8", "replace").splitlines():
                    if line.startswith("gone "):
                        _, number, why = line.split(" ", 2)
                        self._lost = self._line(int(number), why)
                return True
            if not said:
                self._ended[rank] = time.monotonic()
            link.close()
            del self._links[rank]
            return False

    def _look(self) -> None:
        """End this process when another one is gone."""
        now = time.monotonic()
        ended = [rank for rank, since in self._ended.items() if now - since > _GRACE]
        silent = [rank for rank in list(self._links) if now - self._heard[rank] > _SILENCE]
        if not self._lost and (ended or silent):
            rank = (ended or silent)[0]
            why = _ENDED if ended else f"nothing was heard of it for {_SILENCE:.0f} s"
            self._tell(f"gone {rank} {why}\n".encode())
            self._lost = self._line(rank, why)
        if self._lost and not self._well:
            _say(f"error: {self._lost}")
            REQUEST.leave(HUNG)

    def _line(self, rank: int, why: str) -> str:
        return (
            f"{self._places[rank]} is gone: {why}. This run ends; the same command goes on where it was saved"
        )


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


COMPANY = Company()
