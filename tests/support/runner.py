"""Starts training runs quickly: imports everything once, then forks one real process per run.

Reads one JSON object a line on standard input ({"program", "argv", "env", "cwd", "log"}) and answers with
{"pid"}, later with {"pid", "code"}. The child runs what ``python -m unival`` or ``python -m unival.train`` runs.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys


def child(job: dict) -> None:
    os.setpgid(0, 0)
    for number, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(job["log"] + ending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    code = 70
    try:
        code = importlib.import_module(job["program"]).main(job["argv"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    import torch

    torch.set_num_threads(1)  # no thread pool that a fork would leave behind
    import logging

    import av  # noqa: F401
    import librosa  # noqa: F401
    import soundfile  # noqa: F401
    import timm  # noqa: F401

    import unival.plugin
    import unival.specs  # noqa: F401

    logging.getLogger().handlers.clear()  # some library made one
    print(json.dumps({"ready": True}), flush=True)
    running: set[int] = set()
    while True:
        if select.select([sys.stdin], [], [], 0.02)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            job = json.loads(line)
            pid = os.fork()
            if pid == 0:
                child(job)
            running.add(pid)
            print(json.dumps({"pid": pid}), flush=True)
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
