"""The processes of one node, seen through to their end: ``python -m unival.launch VERB ARGUMENTS...``."""

from unival.launch.node import Node, main, run

__all__ = ["Node", "main", "run"]
