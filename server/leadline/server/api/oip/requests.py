"""Parses ModelInferRequests without copying tensors, and equal headers only once.

Protobuf copies the bytes of a field twice, into its message and out of it. For
many images, only the network takes longer. For one image, parsing the header before
the tensor takes longest, and a caller's requests often have the same header.
"""

import functools
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from google.protobuf.message import DecodeError

from leadline.models.images import IMAGE_SIZE
from leadline.oip.v2.open_inference_pb2 import ModelInferRequest
from leadline.server.api import wire
from leadline.server.api.oip.inputs import InputTensor, input_tensor, parameter_number
from leadline.server.api.oip.outputs import RequestedOutput, requested_outputs

# For at least this many bytes, finding the tensors in Python is faster.
_LARGE = 1 << 16

_RAW_CONTENTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_CONTENTS_TAG = _RAW_CONTENTS << 3 | wire.BYTES

# Clients send about a dozen. Protobuf is faster for many small fields.
_MOST_FIELDS = 100

# Tensors consist of whole UINT8 images of this size; an FP32 image is four times as large.
_IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3

# The number of cached headers, and the longest one in bytes.
_KNOWN_HEADERS = 1_024
_HEADER_BYTES = 512


class Header:
    """A request without its tensors; each part is checked once.

    Requests with equal headers share one object: do not modify `message`.

    Attributes:
        message: the request; it lacks the raw contents if they were not copied.
    """

    def __init__(self, message: ModelInferRequest) -> None:
        self.message = message

    @cached_property
    def tensor(self) -> InputTensor:
        """The only input; raises the errors of `input_tensor`."""
        return input_tensor(self.message)

    @cached_property
    def outputs(self) -> tuple[RequestedOutput, ...]:
        """The requested outputs; raises the errors of `requested_outputs`."""
        return requested_outputs(self.message)

    @cached_property
    def timeout(self) -> float | None:
        """The parameter `timeout` in seconds; None without it.

        Raises:
            InvalidArgumentError: the parameter is not a number of microseconds.
        """
        parameters = self.message.parameters
        if "timeout" not in parameters:
            return None
        return parameter_number(parameters, "timeout", "parameters") / 1e6 or None  # 0 means none


class InferRequest(NamedTuple):
    """A request: its header, and its raw tensors in order."""

    header: Header
    raw: Sequence[bytes | memoryview]


def parse(data: bytes | memoryview) -> InferRequest:
    """Reads a serialized ModelInferRequest.

    Raises:
        google.protobuf.message.DecodeError: the request is malformed.
    """
    try:
        if (start := _start_of_images(data)) is not None:
            header_end, images_start = start
            return InferRequest(
                _known_header(bytes(data[:header_end])), (memoryview(data)[images_start:],)
            )
        if len(data) >= _LARGE:
            return _split(memoryview(data))
    except (ValueError, DecodeError):
        pass  # unusual or malformed: left to protobuf
    message = ModelInferRequest.FromString(data)  # type: ignore[arg-type]
    return InferRequest(Header(message), message.raw_input_contents)


def _start_of_images(data: bytes | memoryview) -> tuple[int, int] | None:
    """The end of the header and the start of the images, if only whole images follow."""
    images_bytes = len(data) // _IMAGE_BYTES * _IMAGE_BYTES
    prefix = wire.field_prefix(_RAW_CONTENTS, images_bytes)
    images_start = len(data) - images_bytes
    header_end = images_start - len(prefix)
    is_usual = 0 <= header_end <= _HEADER_BYTES and data[header_end:images_start] == prefix
    return (header_end, images_start) if is_usual else None


@functools.lru_cache(maxsize=_KNOWN_HEADERS)
def _known_header(data: bytes) -> Header:
    message = ModelInferRequest.FromString(data)
    if message.raw_input_contents:
        raise ValueError("more tensors precede the last one")
    return Header(message)


def _split(data: memoryview) -> InferRequest:
    """Separates the raw contents from a request.

    Raises:
        ValueError: the message has a field that clients of the protocol never send.
    """
    rest, raw = bytearray(), []
    position = fields = 0
    while position < len(data):
        fields += 1
        if fields > _MOST_FIELDS:
            raise ValueError("the message has many fields")
        start = position
        tag, position = wire.read_varint(data, position)
        begin, end = wire.content(data, position, tag & 7)
        if end > len(data):
            raise ValueError("the message ends within a field")
        if tag == _RAW_CONTENTS_TAG:
            raw.append(data[begin:end])
        else:
            rest += data[start:end]
        position = end
    return InferRequest(Header(ModelInferRequest.FromString(bytes(rest))), raw)
