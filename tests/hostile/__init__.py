"""What callers who mean harm send to a server, and what it costs others: see docs/security.md."""
