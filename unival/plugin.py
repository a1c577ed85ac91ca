"""Imports the fairseq half of the project, so that its classes register, and names our trainer.

fairseq imports this through ``--user-dir unival``; everything of ours says ``import unival.plugin``.
"""

from __future__ import annotations

import fairseq_cli.train

import unival.criterions.label_smoothed
import unival.data.dataset
import unival.data.iterator
import unival.models.ema
import unival.models.unival
import unival.tasks.base
import unival.tasks.finetune
import unival.tasks.options
import unival.tasks.pretrain
import unival.tasks.safety
import unival.tasks.trainer

# The engine has no option for the trainer class; its entry point looks the name up at call time.
fairseq_cli.train.Trainer = unival.tasks.trainer.UnivalTrainer
