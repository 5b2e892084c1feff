"""Builds single HTTP/2 frames, for calls that start, stop and fail like in no library."""

import struct
from collections import Counter
from collections.abc import Iterable, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, PING, GOAWAY = 0x0, 0x1, 0x3, 0x6, 0x7
_PRIORITY, _SETTINGS, _WINDOW_UPDATE, _CONTINUATION = 0x2, 0x4, 0x8, 0x9
_END_STREAM, _END_HEADERS = 0x1, 0x4
_CANCEL = 8
_FRAME_HEADER_BYTES = 9


def settings(values: Mapping[int, int] | None = None) -> bytes:
    """Returns a client's settings by their numbers; none by default."""
    pairs = (struct.pack(">HI", *pair) for pair in (values or {}).items())
    return _frame(_SETTINGS, 0, 0, b"".join(pairs))


def ping() -> bytes:
    """A ping."""
    return _frame(PING, 0, 0, bytes(8))


def headers(
    stream: int, path: str, fields: Iterable[tuple[bytes, bytes]] = (), *, ends: bool = True
) -> bytes:
    """Returns the headers of a gRPC call; `continuation` continues them if they do not end here."""
    all_fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"127.0.0.1"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *fields,
    ]
    return _frame(HEADERS, _END_HEADERS if ends else 0, stream, field_block(all_fields))


def continuation(stream: int, block: bytes, *, ends: bool = False) -> bytes:
    """More headers."""
    return _frame(_CONTINUATION, _END_HEADERS if ends else 0, stream, block)


def field_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns uncompressed header fields of up to 126 bytes each."""
    return b"".join(_literal(*field) for field in fields)


def message(stream: int, data: bytes) -> bytes:
    """Returns the uncompressed request of a unary call."""
    return _frame(DATA, _END_STREAM, stream, b"\0" + struct.pack(">I", len(data)) + data)


def data(stream: int, content: bytes) -> bytes:
    """A part of a body."""
    return _frame(DATA, 0, stream, content)


def part_of_message(stream: int, content: bytes) -> bytes:
    """Returns the first half of a call's request."""
    return data(stream, b"\0" + struct.pack(">I", 2 * len(content)) + content)


def message_begin(stream: int, length: int) -> bytes:
    """Returns only the prefix of a request that declares this length."""
    return _frame(DATA, 0, stream, b"\0" + struct.pack(">I", length))


def reset(stream: int) -> bytes:
    """Cancels a stream."""
    return _frame(RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


def priority(stream: int) -> bytes:
    """A stream's priority, which RFC 9113 deprecates."""
    return _frame(_PRIORITY, 0, stream, struct.pack(">IB", 0, 15))


def window_update(stream: int, increment: int) -> bytes:
    """Returns a window update of a stream, or of the connection (0)."""
    return _frame(_WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def count_frames(data: bytes) -> Counter[int]:
    """Counts the frames in a server's data by type."""
    kinds: Counter[int] = Counter()
    while len(data) >= _FRAME_HEADER_BYTES:
        kinds[data[3]] += 1
        data = data[_FRAME_HEADER_BYTES + int.from_bytes(data[:3]) :]
    return kinds


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Returns a literal header field without indexing: RFC 7541, 6.2.2."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
