"""Finds the mistakes of trained checkpoints."""
