"""What happens when things are killed, cut, filled and damaged: see docs/reliability.md."""
