"""fairseq tasks of UnIVAL; imported as ``unival.tasks``."""
