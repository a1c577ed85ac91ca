"""Imports the fairseq half of the project, so that its classes register, and names our trainer.

fairseq imports this through ``--user-dir unival``; everything of ours says ``import unival.plugin``.
"""

from __future__ import annotations

from unival.core.logs import quieten
from unival.tasks.engine import install
from unival.tasks.tracking import finish as finish

install()
quieten()
