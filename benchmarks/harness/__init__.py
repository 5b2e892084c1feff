"""Shared code of the benchmarks: server processes, load, checks, figures."""
