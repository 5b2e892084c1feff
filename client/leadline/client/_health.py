"""The health of the server."""

import enum


class HealthStatus(enum.Enum):
    """The result of a `grpc.health.v1` check."""

    UNKNOWN = 0

    SERVING = 1
    """The server accepts calls."""

    NOT_SERVING = 2
    """The server is shutting down, or cannot work."""

    SERVICE_UNKNOWN = 3
    """The server has no service of this name."""
