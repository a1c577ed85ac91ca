"""Evaluation of a checkpoint on a table: sharded, resumable, the same on one process and on many."""

from unival.core.provenance import file_hash, table_hash, versions
from unival.evaluate.run import Evaluation, Settings, write_result
from unival.evaluate.scoring import Scored, score_predictions

__all__ = [
    "Evaluation",
    "Scored",
    "Settings",
    "file_hash",
    "score_predictions",
    "table_hash",
    "versions",
    "write_result",
]
