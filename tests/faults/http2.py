"""Just enough of HTTP/2 to begin a gRPC call by hand, and to leave in the middle of it."""

import struct
from collections import Counter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, PING, GOAWAY = 0x0, 0x1, 0x3, 0x6, 0x7
_SETTINGS, _WINDOW_UPDATE = 0x4, 0x8
_END_STREAM, _END_HEADERS = 0x1, 0x4
_FRAME_HEADER_BYTES = 9


def settings() -> bytes:
    """A client's settings: none."""
    return _frame(_SETTINGS, 0, 0, b"")


def ping() -> bytes:
    """A ping."""
    return _frame(PING, 0, 0, bytes(8))


def headers(stream: int, path: str) -> bytes:
    """The headers of a gRPC call."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"127.0.0.1"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    return _frame(HEADERS, _END_HEADERS, stream, b"".join(_literal(*field) for field in fields))


def message(stream: int, data: bytes) -> bytes:
    """A call's one request, uncompressed."""
    return _frame(DATA, _END_STREAM, stream, b"\0" + struct.pack(">I", len(data)) + data)


def part_of_message(stream: int, data: bytes) -> bytes:
    """The beginning of a call's request, which says that as much again follows."""
    return _frame(DATA, 0, stream, b"\0" + struct.pack(">I", 2 * len(data)) + data)


def reset(stream: int) -> bytes:
    """Cancels a call."""
    return _frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


def window_update(stream: int, increment: int) -> bytes:
    """Allows the server to send more; an increment of 0 is an error of the stream."""
    return _frame(_WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def count_frames(data: bytes) -> Counter[int]:
    """The frames in what a server has sent, by their type."""
    kinds: Counter[int] = Counter()
    while len(data) >= _FRAME_HEADER_BYTES:
        kinds[data[3]] += 1
        data = data[_FRAME_HEADER_BYTES + int.from_bytes(data[:3]) :]
    return kinds


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing, its name and value as they are: RFC 7541, 6.2.2."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
