"""``python -m unival.train``: register the plugin, repair what the engine cannot know, run fairseq.

Takes exactly the options of ``fairseq-train``. ``unival train RECIPE`` ends here too.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence

from unival.errors import ConfigError, UnivalError, nearest

logger = logging.getLogger(__name__)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse fairseq's options with ours registered.

    Raises:
        SystemExit: an unknown or malformed option (argparse's message, exit code 2).
    """
    from fairseq import options

    from unival import plugin  # noqa: F401  (registers)

    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, input_args=list(argv))
    return args


def known_options(choices: Mapping[str, str]) -> set[str]:
    """Return every option flag for the chosen task, arch, criterion, optimizer and scheduler.

    Raises:
        ConfigError: a choice that is not registered; the nearest name is offered.
    """
    from fairseq import options
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_REGISTRY

    from unival import plugin  # noqa: F401  (registers)

    registered = {"task": TASK_REGISTRY, "arch": ARCH_MODEL_REGISTRY}
    registered |= {name: entry["registry"] for name, entry in REGISTRIES.items()}
    for name, value in choices.items():
        if value not in registered[name]:
            raise ConfigError(f"{name} '{value}' is not registered.{nearest(value, registered[name])}")
    parser = options.get_training_parser()
    words = [f"--{name.replace('_', '-')}={value}" for name, value in choices.items()]
    options.parse_args_and_arch(parser, input_args=["-", *words], parse_known=True)
    return set(parser._option_string_actions)


def adapt(args: argparse.Namespace) -> argparse.Namespace:
    """Set what fairseq derives wrongly on current machines.

    * ``--bf16`` makes fairseq choose a TPU; here it means bfloat16 on the device at hand.
    * Under torchrun without a GPU fairseq divides by the number of GPUs; the launcher's variables
      are taken as they are and gloo is the backend.
    """
    import torch

    if args.bf16 and args.tpu and "xla" not in sys.modules:
        args.tpu = False
    if torch.cuda.is_available() is False:
        args.cpu = True
        if args.fp16:
            raise ConfigError("--fp16 needs a GPU and none is visible. Use --bf16 or leave precision out.")
        if args.distributed_backend == "nccl":
            args.distributed_backend = "gloo"
    launched = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if launched and args.distributed_init_method is None:
        args.distributed_world_size = int(os.environ["WORLD_SIZE"])
        args.distributed_rank = int(os.environ["RANK"])
        args.device_id = int(os.environ.get("LOCAL_RANK", "0"))
        if args.distributed_world_size > 1:
            args.distributed_init_method = "env://"
            args.distributed_no_spawn = True
    elif not torch.cuda.is_available() and args.distributed_init_method is None:
        args.distributed_world_size = 1
    return args


class _Readable(logging.Filter):
    """Keeps the engine's dumps of whole objects (configuration, module tree) off the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return isinstance(record.msg, str)


def set_up_logging() -> None:
    """One line per event on standard output, before any library configures logging its own way."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(message)s", "%H:%M:%S"))
    handler.addFilter(_Readable())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("hydra", "hydra.core.utils", "fairseq.tasks.text_to_speech", "torch.distributed.nn.jit"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for module in ("hydra", "omegaconf", "torch.jit", "torch.utils.data", "fairseq", "unival.cli"):
        warnings.filterwarnings("ignore", module=module.replace(".", r"\."))


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 2 after an error that is the user's to mend (printed without traceback)."""
    set_up_logging()
    try:
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf
        from fairseq.distributed import utils as distributed_utils
        from fairseq_cli import train as engine
    except ImportError as error:
        print(f"unival train needs fairseq ({error}). Install it with: pip install 'unival[train]'", file=sys.stderr)
        return 2
    try:
        args = adapt(parse(sys.argv[1:] if argv is None else argv))
        distributed_utils.call_main(convert_namespace_to_omegaconf(args), engine.main)
    except UnivalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
