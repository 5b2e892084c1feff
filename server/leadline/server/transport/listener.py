"""The interface of the transports: their options, start and stop."""

from dataclasses import dataclass
from typing import Protocol

from leadline.server.tls import TlsCertificates

# For each connection, which a thousand watchers may share; clients queue further calls.
MAX_STREAMS = 2_000

# Messages of up to this size arrive in one frame.
FRAME_BYTES = 1 << 20

# Unread bytes that HTTP/2 holds outside the budget of messages, for each stream and each
# connection. Up to three streams that nobody reads leave room for others.
STREAM_WINDOW_BYTES = 1 << 20
CONNECTION_WINDOW_BYTES = 1 << 22

# The most metadata of a call.
METADATA_BYTES = 1 << 16

# Idle connections are closed after this time; clients reconnect for their next call.
IDLE_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class ListenerOptions:
    """The options of a listener.

    Attributes:
        max_message_bytes: the largest message accepted, in bytes.
        max_message_memory_bytes: see `MessageIntake`.
        max_pending_per_stream: how many messages of a stream are processed at a time.
        grace_seconds: time for calls to end when the listener stops.
        flush_seconds: time to send their status after that.
        json_logs: whether to log JSON instead of text.
        max_connection_age_seconds: the server sends GOAWAY at this age; 0 for never.
        max_connection_age_grace_seconds: how long calls may then continue.
        shares_port: whether other processes accept connections on the same port.
        tls: the certificates; None for plain text.
    """

    max_message_bytes: int
    max_message_memory_bytes: int = 0
    max_pending_per_stream: int = 1
    grace_seconds: float = 10.0
    flush_seconds: float = 0.5
    json_logs: bool = False
    max_connection_age_seconds: float = 0
    max_connection_age_grace_seconds: float = 0
    shares_port: bool = False
    tls: TlsCertificates | None = None


class Listener(Protocol):
    """Serves calls on a port."""

    async def start(self, host: str, port: int) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
        """

    async def wait_broken(self) -> None:
        """Waits until the listener ends without `stop`.

        Raises:
            Exception: the cause.
        """

    async def stop(self) -> None:
        """Stops accepting connections and calls, and ends calls that outlast the grace period."""
