"""Show what a network reconstructs of a video."""
