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
from leadline.server.api.oip.names import selector_of
from leadline.server.api.oip.outputs import RequestedOutput, requested_outputs
from leadline.server.api.oip.straight import StraightPath, straight_path
from leadline.server.errors import ServiceError

# For at least this many bytes, finding the tensors in Python is faster.
_LARGE = 1 << 16

_RAW_CONTENTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_CONTENTS_TAG = _RAW_CONTENTS << 3 | wire.BYTES

# Clients send about a dozen. Protobuf is faster for many small fields.
_MOST_FIELDS = 100

# Tensors consist of whole UINT8 images of this size; an FP32 image is four times as large.
_IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3

# The number of cached headers, and the longest one in bytes, with the prefix of the images.
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
    def straight(self) -> StraightPath | None:
        """The straight path of requests with this header; None if they are unusual."""
        try:
            if self.message.model_version or self.timeout is not None:
                return None
            selector = selector_of(self.message.model_name)
            return straight_path(self.message, self.tensor, self.outputs, selector)
        except ServiceError:
            return None  # the general path reports the error

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
        images_bytes = len(data) // _IMAGE_BYTES * _IMAGE_BYTES
        start = len(data) - images_bytes
        if images_bytes and start <= _HEADER_BYTES:
            header = _known_header(bytes(data[:start]), images_bytes)
            if header is not None:
                return InferRequest(header, (memoryview(data)[start:],))
        if len(data) >= _LARGE:
            return _split(memoryview(data))
    except (ValueError, DecodeError):
        pass  # unusual or malformed: left to protobuf
    message = ModelInferRequest.FromString(data)  # type: ignore[arg-type]
    return InferRequest(Header(message), message.raw_input_contents)


@functools.lru_cache(maxsize=_KNOWN_HEADERS)
def _known_header(data: bytes, images_bytes: int) -> Header | None:
    """The header of a request that consists of `data` and whole images; None for any other."""
    prefix = wire.field_prefix(_RAW_CONTENTS, images_bytes)
    if not data.endswith(prefix):
        return None
    message = ModelInferRequest.FromString(data[: -len(prefix)])
    return Header(message) if not message.raw_input_contents else None


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
