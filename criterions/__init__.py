"""fairseq criterions of UnIVAL; imported as ``unival.criterions``."""
