"""Pre-training, and what every training has in common."""
