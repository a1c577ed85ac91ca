"""Self-critical text-to-image: the reward is the similarity of picture and caption."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from unival.criterions.scst import SelfCriticalCriterion
from unival.errors import ConfigError
from unival.imagegen.grid import read_grids
from unival.imagegen.scorer import ImageScorer

SCALE = 2.5  # of the cosine, as in CLIPScore (Hessel et al. 2021) and the reference


@register_criterion("clip_scst_reward_criterion")
class ClipCriterion(SelfCriticalCriterion):
    """2.5 * cosine of CLIP's picture and caption; baseline: mean of the caption's other pictures.

    Every row of a batch is rewarded for its own pictures by its own caption. The task's ``vqgan_model_path``
    and ``clip_model_path`` name the networks, which never train.
    """

    specs = ("image_gen",)

    def __init__(self, task: Any, options: Any) -> None:
        if not task.options.clip_model_path:
            raise ConfigError(
                "clip_scst_reward_criterion rewards pictures: give --vqgan-model-path and --clip-model-path"
            )
        super().__init__(task, options)

    def rewards(self, sample: dict[str, Any], tokens: Tensor, outputs: list[list[Any]]) -> Tensor:
        options = self.task.options
        present = torch.tensor([[output is not None for output in row] for row in outputs])
        codes = [output["codes"] for row in outputs for output in row if output is not None]
        captions = [
            reference["text"]
            for row, reference in zip(outputs, sample["references"], strict=True)
            for output in row
            if output is not None
        ]
        scorer = ImageScorer.of(options, str(tokens.device))
        pictures = scorer.render(read_grids(codes, options.code_image_size))
        rewards = torch.zeros(present.shape)
        rewards[present] = SCALE * torch.from_numpy(scorer.to_text(pictures, captions)).float()
        return rewards
