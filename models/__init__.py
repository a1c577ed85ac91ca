"""fairseq models of UnIVAL; imported as ``unival.models``."""
