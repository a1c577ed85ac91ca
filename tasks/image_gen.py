"""Text-to-image under the reference's task name."""

from __future__ import annotations

import logging
from argparse import Namespace
from dataclasses import replace

from fairseq.tasks import register_task

from unival.tasks.base import UnivalTask
from unival.vocabulary.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@register_task("image_gen")
class ImageGenTask(UnivalTask):
    """Captions to image codes.

    Validation draws pictures and scores their similarity when a VQGAN and a CLIP are given, and is by the
    loss otherwise.
    """

    spec_name = "image_gen"

    def __init__(self, args: Namespace, vocabulary: Vocabulary) -> None:
        super().__init__(args, vocabulary)
        if self.cfg.eval_generate and not self.options.clip_model_path:
            logger.info(
                "validation is by the loss: similarity needs --vqgan-model-path and --clip-model-path"
            )
            self.cfg = replace(self.cfg, eval_generate=False)
