"""Who calls: a name and a role."""

import enum
from dataclasses import dataclass


class Role(enum.IntEnum):
    """What a caller may do; each role includes those before it.

    ANYONE stands for methods that need no credentials.
    """

    ANYONE = 0
    PREDICTOR = 1
    """Predicts, and reads what a model is."""
    VIEWER = 2
    """Reads everything: jobs, sweeps, models, and images of datasets."""
    TRAINER = 3
    """Trains, and changes its own jobs, sweeps and models."""
    ADMIN = 4
    """Changes everything."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        name: the owner of what the caller creates; "" without authentication.
        role: what the caller may do.
    """

    name: str
    role: Role


UNAUTHENTICATED = Identity(name="", role=Role.ADMIN)
"""Every caller of a server without authentication."""

ANONYMOUS = Identity(name="", role=Role.ANYONE)
"""The caller of a method that needs no credentials, on a server with authentication."""
