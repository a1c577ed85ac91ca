"""Imports the fairseq half of the project, so that its classes register, and names our trainer.

fairseq imports this through ``--user-dir unival``; everything of ours says ``import unival.plugin``.
"""

from __future__ import annotations

import fairseq.checkpoint_utils
import fairseq.models.distributed_fairseq_model
import fairseq_cli.train

import unival.criterions.caption_scst
import unival.criterions.clip_scst
import unival.criterions.grounding_scst
import unival.criterions.label_smoothed
import unival.criterions.scst
import unival.data.dataset
import unival.data.iterator
import unival.models.ema
import unival.models.parallel
import unival.models.unival
import unival.tasks.base
import unival.tasks.files
import unival.tasks.finetune
import unival.tasks.image_gen
import unival.tasks.mixture
import unival.tasks.options
import unival.tasks.planning
import unival.tasks.preflight
import unival.tasks.pretrain
import unival.tasks.safety
import unival.tasks.schedule
import unival.tasks.tracking
import unival.tasks.trainer
import unival.tasks.validation
from unival.core.logs import quieten

# The engine has no option for these classes; it looks the names up at call time.
fairseq_cli.train.progress_bar = unival.tasks.tracking  # type: ignore[attr-defined]
fairseq_cli.train.Trainer = unival.tasks.trainer.UnivalTrainer  # type: ignore[attr-defined]
fairseq.checkpoint_utils.PathManager = unival.tasks.files.AtomicFiles  # type: ignore[attr-defined]
fairseq.models.distributed_fairseq_model.DistributedDataParallel = unival.models.parallel.DataParallel  # type: ignore[attr-defined]
finish = unival.tasks.tracking.finish
quieten()
