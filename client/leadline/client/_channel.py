"""Opens channels to the server, with all options of gRPC.

- Messages of up to 64 MiB both ways: grpc's default of 4 MiB is too small
  for images. The server has its own limits.
- Pings every 30 s, to detect a dead peer between two events of a job. The
  server accepts a ping every 5 s.
- No gRPC retry policy: it retries neither streams nor calls whose response
  has begun. The SDK repeats calls itself: see `_retry`.
- Reconnects first after 0.2 s and later at least every 5 s, because a server
  that restarts is back within seconds.
- A connection per client: by default grpc shares connections between the
  channels of a process, and closing a channel leaves them open.
- No HTTP proxy for this machine: grpc uses `http_proxy` for 127.0.0.1 too.
- A token as metadata of each call, if the client has one.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from leadline.client._errors import invalid

ChannelOptions = Sequence[tuple[str, Any]]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

DEFAULT_PORT = 50051
_LAST_PORT = 65_535

# The schemes of targets that gRPC resolves itself; all others are HOST:PORT.
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):")

# A name, an IPv4 address, or an IPv6 address in brackets; then a port.
_HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+|\[(?P<ipv6>[^\[\]]*)\])(?::(?P<port>\w*))?")

# A function that returns the current token.
ReadToken = Callable[[], str]


def open_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: ChannelOptions,
    token: ReadToken | None = None,
) -> grpc.Channel:
    """Opens a channel for the synchronous client; calls carry `token` if it is given."""
    options = channel_options(target, options)
    if credentials is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, credentials, options)
    return channel if token is None else cast("grpc.Channel", _AuthorizedChannel(channel, token))


def open_async_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: ChannelOptions,
    token: ReadToken | None = None,
) -> grpc.aio.Channel:
    """Opens a channel for the asynchronous client; calls carry `token` if it is given."""
    options = channel_options(target, options)
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options)
    if token is None:
        return channel
    return cast("grpc.aio.Channel", _AuthorizedChannel(channel, token))


class _AuthorizedChannel:
    """A channel of either API whose calls carry the current token as metadata.

    Not an interceptor: those differ between the two APIs, and wrap the calls.
    """

    def __init__(self, channel: Any, token: ReadToken) -> None:
        self._channel = channel
        self._token = token
        self.close = channel.close

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        """Makes methods as the channel does; `kind` is such as "unary_stream"."""
        make = getattr(self._channel, kind)
        return lambda *arguments, **options: self._authorized(make(*arguments, **options))

    def _authorized(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, **options: Any) -> Any:
            metadata = (("authorization", f"Bearer {self._token()}"),)
            return method(request, metadata=metadata, **options)

        return call


def normal_target(target: str) -> str:
    """The target for gRPC, without "http://" or "https://", and with port 50051 if it has none.

    Raises:
        InvalidArgumentError: the target is empty or malformed.
    """
    address = target.strip()
    if scheme_tls(address) is not None:
        address = address.partition("://")[2].rstrip("/")
    if not address:
        raise invalid("target", "the address is empty: give HOST:PORT")
    if _SCHEME.match(address):
        _check_port(address.rpartition(":")[2])
        return address
    if _is_ipv6(address):
        address = f"[{address}]"
    parts = _HOST_AND_PORT.fullmatch(address)
    if not parts or (parts["ipv6"] is not None and not _is_ipv6(parts["ipv6"])):
        raise invalid("target", f"{address!r} is not an address: give HOST:PORT or [IPV6]:PORT")
    if parts["port"] is None:
        return f"{address}:{DEFAULT_PORT}"
    if not parts["port"].isdecimal():
        raise invalid("target", f"{parts['port']!r} is not a port: give 1 to {_LAST_PORT}")
    _check_port(parts["port"])
    return address


def scheme_tls(target: str) -> bool | None:
    """Whether the scheme of a URL asks for TLS; None for other targets."""
    scheme, separator, _ = target.strip().lower().partition("://")
    return {"http": False, "https": True}.get(scheme) if separator else None


def is_loopback(target: str) -> bool:
    """Whether calls to a normal target never leave this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = re.sub(r"^ipv[46]:", "", target).rpartition(":")[0].strip("[]").lower()
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(port: str) -> None:
    # gRPC silently uses another port for a number beyond the last port.
    if port.isdecimal() and not 1 <= int(port) <= _LAST_PORT:
        raise invalid("target", f"{port} is not a port: give 1 to {_LAST_PORT}")


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def channel_options(target: str, overrides: ChannelOptions = ()) -> list[tuple[str, Any]]:
    """The options of a channel to `target`; the caller's override the SDK's."""
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
        "grpc.enable_http_proxy": 0 if is_loopback(target) else 1,
    }
    return list((options | dict(overrides)).items())
