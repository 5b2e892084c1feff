"""How a channel to the server is made: every option of gRPC in one place.

- Messages of up to 64 MiB both ways, since grpc's 4 MiB meet pictures by
  surprise; the server states limits of its own.
- Pings every 30 s, so that a dead peer is noticed while a job is between two
  events; the server expects none sooner than 5 s after the last, and cuts
  nobody off for more.
- No retry policy of gRPC's: that gives up as soon as an answer has begun,
  so a connection cut in the middle of one is an error to the caller, and it
  knows nothing of streams. The SDK repeats calls itself: see `_retry`.
- The first reconnection is tried after 0.2 s and later ones at least every
  5 s, since a server that restarts is back within seconds.
- A connection of one's own for each client, rather than grpc's sharing of
  connections between channels of a process: closing one is then closing it.
- No proxy on the way to this very machine: grpc honours `http_proxy` for
  127.0.0.1 too, where no proxy can help.
"""

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

ChannelOptions = Sequence[tuple[str, Any]]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_LOOPBACK_HOSTS = ("127.", "localhost", "[::1]", "ipv4:127.", "ipv6:[::1]", "unix:")


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: ChannelOptions
) -> grpc.Channel:
    """A channel for the synchronous client."""
    options = channel_options(target, options)
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


def open_async_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: ChannelOptions
) -> grpc.aio.Channel:
    """A channel for the asynchronous client."""
    options = channel_options(target, options)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


def channel_options(target: str, overrides: ChannelOptions = ()) -> list[tuple[str, Any]]:
    """The options of a channel to `target`, over which the caller's take precedence."""
    options: dict[str, Any] = {
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 5_000,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.enable_http_proxy": 0 if target.startswith(_LOOPBACK_HOSTS) else 1,
    }
    return list((options | dict(overrides)).items())
