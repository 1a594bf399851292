"""What comes after training: weights for other tools, the paper's figures, a report of a run."""
