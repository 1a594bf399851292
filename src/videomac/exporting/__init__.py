"""Weights for other tools."""
