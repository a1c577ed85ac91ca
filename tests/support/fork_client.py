"""``python fork_client.py SERVER WORDS...`` does what ``python -m unival WORDS...`` does, in a fork of the server."""

import json
import os
import signal
import socket
import sys

server, *words = sys.argv[1:]
job = {"module": "unival.cli", "argv": words, "env": dict(os.environ), "cwd": os.getcwd()}
connection = socket.socket(socket.AF_UNIX)
connection.connect(f"\0{server}")
line = json.dumps(job).encode() + b"\n"
socket.send_fds(connection, [line[:1]], [0, 1, 2])
connection.sendall(line[1:])
answers = connection.makefile()
pid = json.loads(answers.readline())["pid"]
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = json.loads(answers.readline())["code"]
sys.exit(code if code >= 0 else 128 - code)
