"""What the page refuses beyond what the service itself refuses."""


class TooBusyError(Exception):
    """A bound on the page's own work is reached; the message says which."""
