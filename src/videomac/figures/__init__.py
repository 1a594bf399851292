"""The paper's figures, drawn from runs."""
