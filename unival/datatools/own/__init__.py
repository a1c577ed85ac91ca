"""Tools for tables of one's own: convert, check, look at, split (``unival data ...``)."""
