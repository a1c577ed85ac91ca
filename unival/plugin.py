"""Imports the fairseq half of the project, so that its classes register, and names our trainer.

fairseq imports this through ``--user-dir unival``; everything of ours says ``import unival.plugin``.
"""

from __future__ import annotations

import unival.data.engine_start

# isort: split
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
import unival.tasks.ahead
import unival.tasks.base
import unival.tasks.compiling
import unival.tasks.continuing
import unival.tasks.ending
import unival.tasks.engine
import unival.tasks.files
import unival.tasks.finetune
import unival.tasks.fitting
import unival.tasks.guards
import unival.tasks.image_gen
import unival.tasks.journal
import unival.tasks.keeping
import unival.tasks.mixture
import unival.tasks.numbers
import unival.tasks.optimizer
import unival.tasks.options
import unival.tasks.parameters
import unival.tasks.planning
import unival.tasks.precision
import unival.tasks.preflight
import unival.tasks.pretrain
import unival.tasks.progress
import unival.tasks.safety
import unival.tasks.saving
import unival.tasks.schedule
import unival.tasks.snapshot
import unival.tasks.spikes
import unival.tasks.timing
import unival.tasks.tracking
import unival.tasks.trainer
import unival.tasks.validation
import unival.tasks.waiting
from unival.core.logs import quieten
from unival.tasks.engine import install

finish = unival.tasks.tracking.finish  # type: ignore[attr-defined]
install()
quieten()
