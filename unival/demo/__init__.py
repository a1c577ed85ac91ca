"""A web page to try a model: ``unival demo CHECKPOINT``."""
