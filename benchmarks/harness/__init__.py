"""What the benchmarks share: servers as processes, load, checks, figures."""
