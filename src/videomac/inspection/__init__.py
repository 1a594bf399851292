"""What becomes of a network's layers, and of the mask."""
