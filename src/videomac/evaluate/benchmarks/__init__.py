"""One file for each benchmark: how it lies on disk, what is propagated, how it is scored."""
