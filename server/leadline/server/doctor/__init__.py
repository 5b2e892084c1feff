"""Checks whether a machine can run the server: `leadline doctor`."""
