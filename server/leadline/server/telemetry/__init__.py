"""Metrics, logs and health, for operators."""
