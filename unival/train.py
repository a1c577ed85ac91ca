"""``python -m unival.train``: register the plugin, repair what the engine cannot know, run fairseq.

Takes exactly the options of ``fairseq-train``. ``unival train RECIPE`` ends here too.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unival.core.allocator import keep_freed_memory
from unival.core.claim import take
from unival.core.command import USER_ERROR, report_failure, show_any_text
from unival.core.files import check_folder
from unival.core.installation import install_extra
from unival.core.logs import quieten
from unival.core.ranges import check_ranges
from unival.errors import ConfigError, nearest, said, shortened
from unival.launch.company import COMPANY
from unival.launch.stopping import REQUEST, STOPPED
from unival.launch.watchdog import HUNG, WATCHDOG

if TYPE_CHECKING:
    from unival.tasks.planning import Planned

logger = logging.getLogger(__name__)
_CONNECTION = re.compile(r"gloo|nccl|c10d|connection|peer|socket|barrier", re.IGNORECASE)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(
        f"{shortened(message, 300)} (all options: python -m unival.train --task ... --arch ... --help)"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse fairseq's options with ours registered.

    Raises:
        ConfigError: an unknown option (the nearest name is offered) or a malformed value.
    """
    from unival import plugin  # noqa: F401  (registers)
    from unival.data.engine_start import options

    parser = options.get_training_parser()
    parser.error = _refuse  # argparse would print hundreds of lines of usage first
    try:
        args, unknown = options.parse_args_and_arch(parser, input_args=list(argv), parse_known=True)
    except FileNotFoundError as error:
        raise ConfigError(
            f"--user-dir '{error}' does not exist; leave it out (the plugin is registered already), "
            "or give 'unival' to fairseq-train"
        ) from None
    except (SyntaxError, OverflowError, MemoryError, RecursionError, ValueError) as error:
        raise ConfigError(f"a value of an option cannot be read: {said(error)}") from None
    if unknown:
        flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
        flag = unknown[0].split("=", 1)[0]
        if not flag.startswith("-"):
            raise ConfigError(
                f"unexpected word '{flag}': only the data come without an option's name; quote values with "
                "blanks, and end a continued line of a script with the backslash itself, no blank after it"
            )
        raise ConfigError(f"unknown option '{flag}'.{nearest(flag, flags)}")
    check_ranges(args)
    return args


def known_options(choices: Mapping[str, str]) -> set[str]:
    """Return every option flag for the chosen task, arch, criterion, optimizer and scheduler.

    Raises:
        ConfigError: a choice that is not registered; the nearest name is offered.
    """
    from unival import plugin  # noqa: F401  (registers)
    from unival.data.engine_start import options

    # isort: split
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_REGISTRY

    registered = {"task": TASK_REGISTRY, "arch": ARCH_MODEL_REGISTRY}
    registered |= {name: entry["registry"] for name, entry in REGISTRIES.items()}
    for name in ("task", "arch"):
        if name not in choices:
            raise ConfigError(f"'{name}' is missing: a recipe names its task and its arch")
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
    * ``--precision auto`` becomes ``--bf16`` where that is fast.
    * Under torchrun without a GPU fairseq divides by the number of GPUs; the launcher's variables
      are taken as they are and gloo is the backend.
    """
    import torch

    from unival.tasks.precision import choose_precision

    if args.bf16 and args.tpu and "xla" not in sys.modules:
        args.tpu = False
    if not torch.cuda.is_available():
        args.cpu = True
        if args.fp16:
            raise ConfigError("--fp16 needs a GPU and none is visible. Use --bf16 or leave precision out.")
        if args.distributed_backend == "nccl":
            args.distributed_backend = "gloo"
    choose_precision(args)
    launched = all(os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
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


def call_the_roll(args: argparse.Namespace) -> None:
    """Meet the other ranks that a launcher started; rank 0 prints the table of them.

    Raises:
        ConfigError: an absent rank, or one with other code or options; it is named.
    """
    import torch

    from unival.launch.preflight import Presence, code_facts, option_facts, roll_call, table
    from unival.tasks.options import TaskOptions

    world = args.distributed_world_size
    if world == 1 or args.distributed_init_method != "env://":
        return
    device = "cpu" if args.cpu else f"cuda:{args.device_id} {torch.cuda.get_device_name(args.device_id)}"
    facts = {"code": code_facts(), "options": option_facts(vars(args))}
    own = Presence.here(args.distributed_rank, device, facts)
    ranks = roll_call(own, world, args.preflight_timeout or TaskOptions.preflight_timeout, COMPANY)
    if ranks:
        logger.info(f"pre-flight: {world} ranks with equal code and options\n{table(ranks)}")


def set_up_logging() -> None:
    """One line per event on standard output, before any library configures logging its own way.

    Under torchrun only rank 0 reports progress; all ranks report warnings.
    """
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(message)s", "%H:%M:%S"))
        logging.getLogger().addHandler(handler)
    first = os.environ.get("RANK", "0") == "0"
    logging.getLogger().setLevel(logging.INFO if first else logging.WARNING)
    quieten()


def _engine(cfg: Any) -> None:
    """What every process of a run does; a process that the engine spawned starts here."""
    set_up_logging()
    REQUEST.watch()
    WATCHDOG.start()
    if cfg.common.cpu:
        keep_freed_memory()
    from fairseq_cli import train as engine

    from unival import plugin

    try:
        engine.main(cfg)
    except Exception as error:
        code = _explain(error)
        for worker in multiprocessing.active_children():
            worker.kill()  # one that is handing over a batch would print its broken connection
        raise SystemExit(code) from None
    finally:
        plugin.finish()


def plan(argv: Sequence[str], fitting: bool = False, memory: float | None = None) -> Planned:
    """Return what a run with these options will take: rows, updates, effective batch, memory of a step, time; with
    ``fitting`` the largest batch that fits in ``memory`` gigabytes (default: what is free)."""
    from unival.data.engine_start import convert_namespace_to_omegaconf
    from unival.tasks.planning import plan as plan_run

    return plan_run(convert_namespace_to_omegaconf(adapt(parse(argv))), fitting, memory)


def _explain(error: Exception) -> int:
    """Print why a run ends; an engine's complaint about a connection is another rank's end, which is named."""
    cut = isinstance(error, RuntimeError) and _CONNECTION.search(str(error))
    line = COMPANY.missing() if cut else ""
    if not line:
        return report_failure(error)
    time.sleep(1)  # the launcher of both is to see first which one ended first
    print(f"error: {line}", file=sys.stderr, flush=True)
    return HUNG


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, 2 after an error that is the user's to mend (printed without traceback), 75 when the run
    was asked to stop and has saved, or 76 when another rank is gone."""
    code = _train(argv)
    if code in (0, STOPPED):
        COMPANY.leave()
    return code


def _train(argv: Sequence[str] | None) -> int:
    show_any_text()
    set_up_logging()
    REQUEST.watch()
    REQUEST.at_once = os.environ.get("WORLD_SIZE", "") in ("", "1")  # other processes would wait for this one
    try:
        from unival.data.engine_start import convert_namespace_to_omegaconf, distributed_utils
    except ImportError as error:
        print(
            f"unival train needs fairseq ({error}). Install it with: {install_extra('train')}",
            file=sys.stderr,
        )
        return USER_ERROR
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException

    from unival.tasks.files import tidy

    claim = None
    try:
        args = adapt(parse(sys.argv[1:] if argv is None else argv))
        if args.distributed_world_size > 1:
            REQUEST.at_once = False
        check_folder(args.save_dir)
        if not args.distributed_rank:
            claim = take(args.save_dir)
            REQUEST.leaving.append(claim.release)
            tidy(Path(args.save_dir), args.save_dir_fallback)
        call_the_roll(args)
        distributed_utils.call_main(convert_namespace_to_omegaconf(args), _engine)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except ProcessExitedException as error:  # a spawned process has printed its error
        return error.exit_code or 1
    except Exception as error:
        return _explain(error)
    finally:
        if claim is not None:
            claim.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
