"""Errors of the page beyond those of the services."""


class TooBusyError(Exception):
    """A limit of the page is reached; the message says which."""
