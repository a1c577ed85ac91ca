"""``unival serve CHECKPOINT``: the model as a JSON service."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket

from unival.core import options as cli_options
from unival.core.installation import install_extra
from unival.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the checkpoint, the address and every limit."""
    from unival.serve.limits import ServiceLimits

    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add_service(parser)
    cli_options.add_arguments(parser.add_argument_group("limits"), ServiceLimits)


def add_service(parser: argparse.ArgumentParser) -> None:
    """Declare what the demo and the service share."""
    parser.add_argument("checkpoint", help="folder, .pt file, or name of a released checkpoint")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines (default: 127.0.0.1)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU when there is one)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--bpe-dir",
        help="vocabulary folder, for released files, which carry none (default: bpe below UNIVAL_WEIGHTS)",
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ConfigError where that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"cannot listen on {host} port {port} ({error}): give another --port") from None


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; requests in the model are answered first."""
    try:
        from unival.serve.app import create_app
        from unival.serve.connections import Server
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: {install_extra('demo')}") from None
    from unival import load
    from unival.serve.limits import ServiceLimits

    limits = cli_options.from_namespace(args, ServiceLimits)
    opened = listen(args.host, args.port)
    predictor = load(
        args.checkpoint, args.device, args.precision, bpe_dir=args.bpe_dir, limits=limits.media()
    )
    server = Server(create_app(predictor, limits), limits)
    print(f"serving http://{args.host}:{opened.getsockname()[1]} (stop with Ctrl-C)", flush=True)
    # both ways to stop end in the same clean way
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[opened])
    return 0
