"""What a reader of a training log is spared: the engine's and its libraries' noise."""

from __future__ import annotations

import logging
import re
import warnings

_NOISE = re.compile(
    r"detected shared parameter|num\. expert model params|max tokens per device|grouped total_num_itrs|"
    r"Preparing to (save|load) checkpoint|(Saving|Finished saving) checkpoint|No existing checkpoint found|"
    r"Start iterating|loading train data|begin dry-run|begin training epoch|Copying EMA model|"
    r"--user-dir=|initialized host|distributed init \(rank|Exponential Moving Average"
)


class _Readable(logging.Filter):
    """Keeps the engine's dumps of whole objects (configuration, module tree) and its chatter off the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        return isinstance(record.msg, str) and not _NOISE.match(record.msg)


def quieten() -> None:
    """Leave what helps a reader of the engine's log; warnings and errors stay."""
    for name in (
        "fairseq_cli.train",
        "fairseq.trainer",
        "fairseq.checkpoint_utils",
        "fairseq.utils",
        "fairseq.data.iterators",
        "fairseq.distributed.utils",
        "root",
    ):
        target = logging.getLogger() if name == "root" else logging.getLogger(name)
        if not any(isinstance(known, _Readable) for known in target.filters):
            target.addFilter(_Readable())
    for name in ("hydra", "hydra.core.utils", "fairseq.tasks.text_to_speech", "torch.distributed.nn.jit"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message=r"\s*'config' is validated against ConfigStore")
    for module in (
        "hydra",
        "omegaconf",
        "torch.jit",
        "torch.utils.data",
        "torch.nn.modules.module",
        "fairseq",
    ):
        warnings.filterwarnings("ignore", module=module.replace(".", r"\."))
