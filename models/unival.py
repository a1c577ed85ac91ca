"""The model under its fairseq name, with one option per field of the model configuration."""

from __future__ import annotations

import argparse
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture

from unival.core import options as cli_options
from unival.modeling.build import build_from_config
from unival.modeling.config import ARCHS, PARTS, REFUSED, ModelConfig
from unival.modeling.model import UnIVAL
from unival.modeling.weights import load_into, modality_exceptions
from unival.specs.inputs import check_pixels

logger = logging.getLogger(__name__)


@register_model("unival")
class UnivalModel(UnIVAL, BaseFairseqModel):
    """:class:`unival.modeling.model.UnIVAL` as a fairseq model; state-dict keys are the same.

    ``missing_keys``: those that the last state dict lacked.
    """

    missing_keys: Sequence[str] = ()

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """One flag per option of the configuration; refused options of the reference say why when set."""
        for part in PARTS.values():
            cli_options.add_arguments(parser, part)
        taken = set(parser._option_string_actions)
        for name in REFUSED:
            flag = "--" + name.replace("_", "-")
            if flag not in taken:
                parser.add_argument(flag, nargs="?", const=True, default=None, help=argparse.SUPPRESS)

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> UnivalModel:
        """Build from parsed options; options that were not given keep the architecture's values."""
        options: dict[str, Any] = {}
        for part in PARTS.values():
            options.update(cli_options.given(args, part))
        refused = {name: getattr(args, name) for name in REFUSED if getattr(args, name, None) is not None}
        options.update(refused)
        config = ModelConfig.from_options(args.arch, len(task.vocabulary), **options)
        if hasattr(task, "options"):  # the engine's own tasks load exported files too
            check_pixels(task.options, config.image)
        return build_from_config(config, cls)  # type: ignore[return-value]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load strictly; whole modality networks may be absent on either side, and are reported.

        Raises:
            CheckpointError: any other key or shape that does not fit.
        """
        missing, unexpected = modality_exceptions(self)
        report = load_into(self, dict(state_dict), allow_missing=missing, allow_unexpected=unexpected)
        self.missing_keys = report.missing  # for the trainer, which the engine does not hand the report
        if report.missing or report.unexpected or report.resized:
            logger.info(str(report))
        return report

    def max_positions(self) -> None:
        return None


def _named_size(args: Namespace) -> None:
    """Sizes belong to ``unival.modeling.config``; nothing to add to the namespace."""


for _arch in ARCHS:
    register_model_architecture("unival", _arch)(_named_size)
