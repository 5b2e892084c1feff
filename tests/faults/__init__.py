"""Fault scenarios: processes, connections, disks and files that fail. See docs/reliability.md."""
