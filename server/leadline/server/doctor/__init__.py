"""Checks of what a node can do for a server: `leadline doctor`."""
