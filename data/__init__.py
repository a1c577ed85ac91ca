"""fairseq data of UnIVAL; imported as ``unival.data``."""
