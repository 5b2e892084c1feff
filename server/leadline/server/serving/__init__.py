"""Predictions from trained checkpoints."""
