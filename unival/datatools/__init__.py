"""Making tables: public corpora, one's own data, the sample world, image codes."""
