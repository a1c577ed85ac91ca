"""From examples to batches: padding and joining of rows, mixtures of sources."""
