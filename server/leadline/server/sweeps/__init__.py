"""Sweeps: grids of jobs, their tables and stopping rules."""
