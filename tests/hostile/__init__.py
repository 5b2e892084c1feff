"""Attacks on a server, and their cost for other callers: see docs/security.md."""
