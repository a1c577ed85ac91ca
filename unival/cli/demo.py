"""``unival demo CHECKPOINT``: a web page to try the model."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from unival.cli.serve import add_service, listen
from unival.core import options as cli_options
from unival.core.installation import install_extra
from unival.errors import ConfigError

# of the limits, those that a page has no use for
_NOT_HERE = ("answers", "answer_tokens", "n_best")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the checkpoint, the address, the examples and the limits."""
    from unival.serve.limits import ServiceLimits

    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument("--no-examples", action="store_true", help="draw no examples; starts faster")
    add_service(parser)
    cli_options.add_arguments(parser.add_argument_group("limits"), ServiceLimits, skip=_NOT_HERE)


def run(args: argparse.Namespace) -> int:
    """Show the page until interrupted; uploads and examples are deleted then."""
    with tempfile.TemporaryDirectory(prefix="unival-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        opened = listen(args.host, args.port)
        try:
            from unival.demo.page import as_application, build_page
            from unival.serve.connections import Server
        except ImportError as error:
            raise ConfigError(f"{error.name} is missing: {install_extra('demo')}") from None
        from unival import load
        from unival.demo.examples import render_examples
        from unival.serve.limits import ServiceLimits

        limits = cli_options.from_namespace(args, ServiceLimits)
        predictor = load(
            args.checkpoint, args.device, args.precision, bpe_dir=args.bpe_dir, limits=limits.media()
        )
        world = None if args.no_examples else render_examples(Path(folder) / "world")
        app, leaving = as_application(build_page(predictor, limits, world), limits, Path(folder) / "uploads")
        server = Server(app, limits, leaving)
        print(f"showing http://{args.host}:{opened.getsockname()[1]} (stop with Ctrl-C)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[opened])
    return 0
